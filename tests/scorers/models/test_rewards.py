"""Which models give rewards, and what their outputs are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scorers.models import rewards
from scorers.models.sources import ModelSourceError


def described(folder: Path, **config: Any) -> Path:
    """A model folder with this configuration, and files that nothing here opens."""
    folder.mkdir()
    about = {"architectures": ["LlamaForSequenceClassification"], "model_type": "llama"} | config
    (folder / "config.json").write_text(json.dumps(about), encoding="utf-8")
    for name in ("tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}", encoding="utf-8")
    return folder


def test_one_output_is_the_reward_whatever_it_is_called(tmp_path: Path) -> None:
    found = rewards.resolve(str(described(tmp_path / "m", id2label={"0": "LABEL_0"})), tmp_path)
    assert (found.labels, found.classes) == (("LABEL_0",), False)
    assert found.index("") == found.index("LABEL_0") == 0


def test_of_several_outputs_one_has_to_be_named(tmp_path: Path) -> None:
    names = {"0": "bad", "10": "best", "2": "good"}
    found = rewards.resolve(str(described(tmp_path / "m", id2label=names)), tmp_path)
    assert (found.labels, found.classes) == (("bad", "good", "best"), True)
    assert found.index("good") == 1
    with pytest.raises(ModelSourceError, match=r"has 3 labels .*one of: bad, good, best"):
        found.index("")
    with pytest.raises(ModelSourceError, match="has no label 'great'"):
        found.index("great")


@pytest.mark.parametrize(
    ("config", "labels", "classes"),
    [
        ({}, 2, True),
        ({"num_labels": 3}, 3, True),
        ({"num_labels": 3, "problem_type": "regression"}, 3, False),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, 3, False),
    ],
)
def test_outputs_are_classes_unless_the_model_says_otherwise(
    tmp_path: Path, config: dict[str, Any], labels: int, classes: bool
) -> None:
    found = rewards.resolve(str(described(tmp_path / "m", **config)), tmp_path)
    assert (len(found.labels), found.classes) == (labels, classes)


def test_what_gives_no_rewards_is_refused_in_words(tmp_path: Path) -> None:
    plain = described(tmp_path / "m", architectures=["LlamaForCausalLM"])
    for name, why in (
        (str(tmp_path / "reward.gguf"), "a GGUF file holds a language model without the head"),
        ("smollm2-135m", "smollm2-135m is a language model and gives no rewards"),
        (str(plain), "no reward model but LlamaForCausalLM"),
    ):
        with pytest.raises(ModelSourceError, match=why):
            rewards.resolve(name, tmp_path)
    pickled = described(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelSourceError, match="no safetensors weights"):
        rewards.resolve(str(pickled), tmp_path)
