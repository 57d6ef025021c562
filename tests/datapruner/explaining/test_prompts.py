"""The prompt is shown as the model read it, with what the chat template wrote into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import transformers as tf

from datapruner.errors import InputError
from datapruner.explaining.prompts import prompt_of, reading_of
from datapruner.measuring.signal_cache import ProxyKey, SignalCache
from datapruner.request.config import Measuring, MethodChoice, RunConfig
from datapruner.runs.published import Report, Run
from scorers.conversations.chat import ChatRenderer, Encoded
from scorers.conversations.conversation import Conversation, Turn
from tests.chat_templates import CHATML

#: Adds a system prompt of its own and lists the tools in it, as many templates do.
ADDING = """\
{{- '<|im_start|>system\\nYou are helpful.' -}}
{%- if tools -%}{{- '\\nTools: ' -}}{%- for tool in tools -%}{{- tool | tojson -}}{%- endfor -%}{%- endif -%}
{{- '<|im_end|>\\n' -}}""" + CHATML.lstrip()
TOOLS = '[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]'
TURNS = (Turn("user", "Rain?"), Turn("assistant", "No."), Turn("user", "Snow?"), Turn("assistant", "Yes."))


EL2N = [n / 16 for n in range(16)]


@pytest.fixture
def model(tiny_folder: Path, tmp_path: Path) -> Path:
    """A folder with the tiny model's tokenizer and the template above."""
    tokenizer: Any = tf.AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.chat_template = ADDING
    tokenizer.save_pretrained(tmp_path / "model")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "model" / name).symlink_to(tiny_folder / name)
    return tmp_path / "model"


@pytest.fixture
def key() -> ProxyKey:
    return ProxyKey("m", "r", "t", "float32", None, "truncate", "all", False, 1)


@pytest.fixture
def run(model: Path, key: ProxyKey, tmp_path: Path) -> Run:
    """A run of one measured sample, and of one that could not be measured."""
    tokenizer = tf.AutoTokenizer.from_pretrained(model)
    [encoded] = ChatRenderer(tokenizer).render([Conversation(TURNS, tools=TOOLS)])
    assert isinstance(encoded, Encoded), encoded
    cache = SignalCache(tmp_path, key)
    cache.create()
    shard = {
        "sample_id": ["told", "broken"],
        "error": [None, "too long"],
        "input_ids": [encoded.input_ids.tolist(), None],
        "position": [encoded.position.tolist(), None],
        "el2n": [EL2N[: len(encoded.position)], None],
    }
    pl.DataFrame(shard).write_parquet(cache.folder / "shard.parquet")
    report = Report(2, 1, 0, 0, 1, 0, 0, 0, 0, {}, {}, {}, {})
    config = RunConfig(measuring=Measuring(model=str(model)), methods=[MethodChoice(name="ppl")])
    lineage = {"proxy": {**key.document(), "model": "m"}}
    return Run("0" * 16, tmp_path, config, lineage, report, 1, 0.0)


def test_the_system_prompt_of_the_template_and_the_tools_are_in_the_prompt(run: Run, tmp_path: Path) -> None:
    reading = reading_of(run, "told", tmp_path)
    assert reading.el2n == EL2N[: len(reading.el2n or [])] != []
    prompt = prompt_of(run, reading, tmp_path)
    assert prompt.startswith("<|im_start|>system\nYou are helpful.\nTools: ")
    assert '"weather"' in prompt
    assert "Rain?" in prompt
    assert prompt.endswith("<|im_start|>assistant\n")
    assert "No." not in prompt


@pytest.mark.parametrize("sample", ["broken", "unknown"])
def test_a_sample_without_signals_says_so(run: Run, tmp_path: Path, sample: str) -> None:
    with pytest.raises(InputError, match="its signals are not on this machine"):
        reading_of(run, sample, tmp_path)
    with pytest.raises(InputError, match="its signals are not on this machine"):
        reading_of(run, "told", tmp_path / "elsewhere")


def test_without_the_tokenizer_the_ids_are_no_text(run: Run, model: Path, tmp_path: Path) -> None:
    (model / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="has no tokenizer"):
        prompt_of(run, reading_of(run, "told", tmp_path), tmp_path)
