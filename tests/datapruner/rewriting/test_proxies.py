"""Which proxy models ASAP's score is made for, told by the files of real ones."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import transformers as tf

from datapruner.rewriting.proxies import knows_reasoning, parameters, unfit
from scorers.models.sources import ProxyFolder


def written(folder: Path, *, numbers: int, template: str = "", tokens: str = "") -> ProxyFolder:
    """A folder with the head of weights of so many numbers, in two files."""
    for name, count in (("model-1", numbers - 2), ("model-2", 2)):
        about = {
            "__metadata__": {"format": "pt"},
            "w": {"dtype": "F16", "shape": [count, 1], "data_offsets": [0, 0]},
        }
        head = json.dumps(about).encode()
        (folder / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(head)) + head)
    (folder / "chat_template.jinja").write_text(template or "{{ messages }}")
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"content": tokens}]}))
    return ProxyFolder(folder, "", "", "")


def test_parameters_are_counted_as_the_model_has_them(tiny_folder: Path) -> None:
    model = tf.AutoModelForCausalLM.from_pretrained(tiny_folder)
    stored = {p.data_ptr(): p.numel() for p in model.parameters()}
    assert parameters(tiny_folder) == sum(stored.values())
    assert not knows_reasoning(tiny_folder)


@pytest.mark.parametrize(
    ("numbers", "template", "tokens", "said"),
    [
        (4 * 10**9, "<think>", "", None),
        (4 * 10**9, "", "<think>", None),
        (4 * 10**9, "", "", "asap: the proxy model is no reasoning model: by first tokens"),
        (10**8, "<think>", "", "asap: the proxy model has 100 million parameters: by first tokens"),
        (10**8, "", "", "asap: the proxy model is no reasoning model and has 100 million parameters"),
    ],
)
def test_small_models_and_those_without_reasoning_are_warned_of(
    tmp_path: Path, numbers: int, template: str, tokens: str, said: str | None
) -> None:
    warnings = list(unfit("asap", written(tmp_path, numbers=numbers, template=template, tokens=tokens)))
    assert [each[: len(said)] for each in warnings if said] == ([said] if said else [])
    assert len(warnings) == (said is not None)
