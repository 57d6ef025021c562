"""Sentence embeddings against the encoder's own forward pass, and where encoders come from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from scorers.models import encoders
from scorers.models.sentences import SentenceEncoder
from scorers.models.sources import ModelSourceError
from tests.tiny_encoder import save_tiny_encoder

TEXTS = [
    "the sea is salty",
    "rain",
    "the sea the sea the sea is deep and salty and the rain is not",
    "deep sea",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_encoder(tmp_path_factory.mktemp("tiny-encoder"))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_one_text_at_a_time(folder: Path, pooling: encoders.Pooling) -> None:
    encoder = SentenceEncoder(folder, pooling=pooling)
    found = {at: vector for at, vector, _ in encoder.encode(TEXTS)}
    assert sorted(found) == [0, 1, 2, 3]
    for at, text in enumerate(TEXTS):
        ids = torch.tensor([encoder._tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            hidden = encoder._model(input_ids=ids).last_hidden_state[0]
        alone = hidden.mean(0) if pooling == "mean" else hidden[0]
        assert found[at] == pytest.approx((alone / alone.norm()).numpy(), abs=1e-5)


def test_long_texts_are_cut_and_no_text_is_no_vector(folder: Path) -> None:
    encoder = SentenceEncoder(folder, pooling="mean", max_length=4)
    [(_, cut, tokens)] = encoder.encode([TEXTS[2]])
    [(_, short, _)] = encoder.encode(["the sea"])
    assert tokens == 4
    assert np.array_equal(cut, short), "[CLS] the sea [SEP]"
    assert list(encoder.encode([])) == []


def test_a_model_without_its_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        if path.is_file() and path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ModelSourceError, match="cannot load the encoder"):
        SentenceEncoder(tmp_path, pooling="mean")


def test_pooling_is_read_from_the_folder_and_unknown_kinds_are_refused(folder: Path, tmp_path: Path) -> None:
    assert encoders.pooling(folder) == "mean"
    assert encoders.pooling(tmp_path) == "mean"
    (tmp_path / "1_Pooling").mkdir()
    stated = tmp_path / "1_Pooling" / "config.json"
    stated.write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    assert encoders.pooling(tmp_path) == "cls"
    stated.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(ModelSourceError, match="pooling by max_tokens is not supported"):
        encoders.pooling(tmp_path)
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense"}]))
    with pytest.raises(ModelSourceError, match="a layer Dense"):
        encoders.pooling(tmp_path)


def test_the_revision_follows_from_the_pooling_too(folder: Path, tmp_path: Path) -> None:
    before = encoders.resolve(str(folder), tmp_path).revision
    stated = folder / "1_Pooling" / "config.json"
    text = stated.read_text()
    try:
        stated.write_text(json.dumps({"pooling_mode_cls_token": True}))
        assert encoders.resolve(str(folder), tmp_path).revision != before
    finally:
        stated.write_text(text)
    assert encoders.resolve(str(folder), tmp_path).revision == before


def test_a_name_that_is_no_encoder_lists_what_it_could_be(tmp_path: Path) -> None:
    with pytest.raises(
        ModelSourceError, match=r"no sentence-embedding model called 'mini': not an alias .*all-minilm-l6-v2"
    ):
        encoders.resolve("mini", tmp_path)


def test_finding_encoders_imports_neither_torch_nor_transformers() -> None:
    script = "import sys, scorers.models.encoders; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_the_alias_gives_vectors_in_which_a_paraphrase_is_nearer_than_another_subject() -> None:
    home = Path(os.environ.get("DATAPRUNER_HOME", Path.home() / ".datapruner"))
    found = encoders.resolve("all-minilm-l6-v2", home)
    assert (encoders.pooling(found.path), found.max_length) == ("mean", 256)
    encoder = SentenceEncoder(found.path, pooling="mean", max_length=found.max_length)
    texts = ["How do I boil an egg?", "What is the way to cook eggs in water?", "The court fined the bank."]
    vectors = np.stack([vector for _, vector, _ in sorted(encoder.encode(texts), key=lambda each: each[0])])
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert vectors.shape == (3, 384)
    assert near > 0.6 > 0.2 > far
