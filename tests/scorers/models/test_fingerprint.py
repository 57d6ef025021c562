"""Hashes of tokenizers and templates, which say whether token ids mean the same to two models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from scorers.models import fingerprint
from scorers.models.sources import ModelSourceError
from tests import chat_templates as ct

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tokenizer of a model."""
    ct.byte_level(ct.CHATML).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change(folder: Path, how: Change, name: str = "tokenizer.json") -> None:
    document = json.loads((folder / name).read_text())
    how(document)
    (folder / name).write_text(json.dumps(document, indent=1))


def test_the_fingerprint_of_a_published_model_is_the_same_on_every_machine(smollm2: Path) -> None:
    assert fingerprint.of_folder(smollm2) == {
        "tokenizer": "83eb23682cc82711acd7edfbf0906b26",
        "template": "8e8d987c1ac88c3a34b104a329f878df",
        "special": {
            "bos_token": {"token": "<|im_start|>", "id": 1},
            "eos_token": {"token": "<|im_end|>", "id": 2},
            "pad_token": {"token": "<|im_end|>", "id": 2},
            "unk_token": {"token": "<|endoftext|>", "id": 0},
        },
        "vocabulary": "8901c01cc621bce130bfeb9aa0ca4c67",
        "tokens": 49152,
    }


def test_a_tokenizer_that_is_saved_again_is_the_same(folder: Path, tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert fingerprint.of_folder(tmp_path / "again") == fingerprint.of_folder(folder)


def as_older_files_spell_it(document: dict[str, Any]) -> None:
    model = document["model"]
    model["merges"] = [" ".join(merge) for merge in model["merges"]]
    model["vocab"] = dict(reversed(model["vocab"].items()))
    for name in ("dropout", "ignore_merges", "byte_fallback", "fuse_unk"):
        model.pop(name, None)
    document["pre_tokenizer"].pop("use_regex")
    document["truncation"] = {"max_length": 512}


def test_spelling_order_and_defaults_are_no_part_of_it(folder: Path) -> None:
    before = fingerprint.of_folder(folder)
    change(folder, as_older_files_spell_it)
    (folder / "chat_template.jinja").write_text(ct.CHATML.replace("\n", "\r\n"), newline="")
    assert fingerprint.of_folder(folder) == before


def swap_two_ids(document: dict[str, Any]) -> None:
    ids = document["model"]["vocab"]
    ids["a"], ids["b"] = ids["b"], ids["a"]


@pytest.mark.parametrize(
    ("how", "changed"),
    [
        (swap_two_ids, {"tokenizer", "vocabulary"}),
        (lambda d: d["model"]["merges"].pop(), {"tokenizer"}),
        (lambda d: d.update(normalizer={"type": "NFC"}), {"tokenizer"}),
        (lambda d: d["pre_tokenizer"].update(add_prefix_space=True), {"tokenizer"}),
        (lambda d: d["added_tokens"][0].update(special=False), {"tokenizer"}),
        (
            lambda d: d["added_tokens"].append({"id": 999, "content": "<new>", "special": True}),
            {"tokenizer", "vocabulary", "tokens"},
        ),
    ],
    ids=["ids", "merges", "normalizer", "pre-tokenizer", "special", "a new token"],
)
def test_whatever_decides_ids_is_part_of_it(folder: Path, how: Change, changed: set[str]) -> None:
    before: dict[str, Any] = {**fingerprint.of_folder(folder)}
    change(folder, how)
    after: dict[str, Any] = {**fingerprint.of_folder(folder)}
    assert {name for name in before if before[name] != after[name]} == changed


def test_the_template_and_the_roles_of_tokens_are_told_apart(folder: Path) -> None:
    before = fingerprint.of_folder(folder)
    change(folder, lambda config: config.update(eos_token="<|im_end|>"), "tokenizer_config.json")
    (folder / "chat_template.jinja").write_text(ct.LLAMA3)
    after = fingerprint.of_folder(folder)
    assert after["tokenizer"] == before["tokenizer"]
    assert after["template"] != before["template"]
    assert (before["special"]["eos_token"]["token"], after["special"]["eos_token"]["token"]) == (
        "</s>",
        "<|im_end|>",
    )


@pytest.mark.parametrize("make", [ct.unigram, ct.word_piece, ct.sentencepiece_like])
def test_tokenizers_of_every_kind_have_as_many_tokens_as_they_say(make: Any, tmp_path: Path) -> None:
    tokenizer = make(ct.CHATML)
    tokenizer.save_pretrained(tmp_path)
    found = fingerprint.of_folder(tmp_path)
    assert found["tokens"] == len(tokenizer)
    assert found["special"]["eos_token"]["id"] == tokenizer.eos_token_id


@pytest.mark.parametrize("text", ["[]", "{", '{"model": 3}', '{"model": {"vocab": [1]}}'])
def test_a_file_that_is_no_tokenizer_is_refused(folder: Path, text: str) -> None:
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(ModelSourceError, match=r"cannot be read: .*save it again"):
        fingerprint.of_folder(folder)
