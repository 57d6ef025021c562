"""What is warned of before a model is trained on conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datapruner.errors import ModelError
from datapruner.outputs import learner


def model(folder: Path, template: str | None = "{{ messages }}", **config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    "classes",
    [
        ["LlamaForCausalLM"],
        ["GPT2LMHeadModel"],
        ["Gemma3ForConditionalGeneration"],
        ["BertModel", "XForCausalLM"],
        None,
        [],
        3,
        [{}],
    ],
)
def test_a_chat_model_and_one_that_says_nothing_are_not_warned_of(tmp_path: Path, classes: Any) -> None:
    assert learner.warnings(str(model(tmp_path, architectures=classes)), tmp_path) == []


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"architectures": ["BertModel"]}, " (BertModel)"),
        (
            {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
            " (T5ForConditionalGeneration)",
        ),
        ({"is_encoder_decoder": True}, ""),
    ],
)
def test_a_model_that_is_no_causal_one_is_warned_of(tmp_path: Path, config: Any, what: str) -> None:
    [said] = learner.warnings(str(model(tmp_path, **config)), tmp_path)
    assert f"no causal language model by its configuration{what}:" in said


def test_a_model_without_a_template_is_warned_of(tmp_path: Path) -> None:
    [said] = learner.warnings(str(model(tmp_path, template=None)), tmp_path)
    assert "has no chat template" in said


def test_a_configuration_that_cannot_be_read_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (model(tmp_path) / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config.json: cannot be read: .*\(get the model again\)"):
        learner.configuration(tmp_path)
