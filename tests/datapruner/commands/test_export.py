"""Subsets written for the model that will be trained, where another measured them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer, BertConfig, LlamaConfig

from datapruner.result import Result
from scorers.models import fingerprint
from tests import chat_templates as ct
from tests.command_line import Said
from tests.pipeline import Prune

Command = Callable[..., Said]


@pytest.fixture(scope="module")
def pruned(prune: Prune) -> Result:
    return prune("qtuning", 0.8, token_keep=0.4)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of whole words whose template takes at most two turns."""
    folder = tmp_path_factory.mktemp("target")
    strict = "{%- if messages|length > 2 -%}{{ raise_exception('one turn each') }}{%- endif -%}" + ct.CHATML
    tokenizer = ct.word_piece(strict)
    tokenizer.save_pretrained(folder)
    LlamaConfig(vocab_size=len(tokenizer)).save_pretrained(folder)
    return folder


def test_a_subset_for_another_model_is_in_its_tokens_and_says_what_became_of_the_rows(
    command: Command, pruned: Result, target: Path, home: Path, tmp_path: Path
) -> None:
    out, run = tmp_path / "train.parquet", pruned.run.run_id
    export = ("export", run, "--for", "trl", "--out", out, "--tokenizer", target)
    said = command(*export, "--json", home=home).json
    table = pq.read_table(out)
    carried, counts = said["carried"], said["counts"]
    assert table.num_rows == counts["written"] == carried["carried"] - counts["untrained"]
    assert carried["rows"] == pruned.report.kept == carried["carried"] + sum(carried["refused"].values())
    assert carried["on_border"] > 0
    tokenizer = AutoTokenizer.from_pretrained(target)
    for ids in table["input_ids"].to_pylist():
        assert tokenizer.decode(ids).startswith("<|im_start|> user")
    about: dict[str, Any] = json.loads(pq.read_schema(out).metadata[b"datapruner"])
    beside = json.loads(out.with_suffix(".run.json").read_text())
    assert about["carried"]["tokenizer"] == fingerprint.of_folder(target)
    assert beside["carried"] == about["carried"] | carried
    text = command(*export, "--characters", "any", home=home).out
    assert f"of {carried['rows']} rows to the other tokenizer" in text
    assert "have characters of both kinds" in text
    assert "2 rows: chat template refused the conversation: one turn each" in text
    more = pq.read_table(out)["labels"].combine_chunks().flatten().to_numpy()
    assert (more != -100).sum() > counts["trained_tokens"]


def test_a_model_that_is_no_chat_model_is_warned_of(
    command: Command, pruned: Result, home: Path, tmp_path: Path
) -> None:
    encoder = tmp_path / "encoder"
    tokenizer = ct.word_piece(None)
    tokenizer.save_pretrained(encoder)
    BertConfig(vocab_size=len(tokenizer), architectures=["BertModel"]).save_pretrained(encoder)
    out = tmp_path / "train.parquet"
    export = ("export", pruned.run.run_id, "--for", "trl", "--out", out, "--tokenizer", encoder)
    said = command(*export, home=home).out
    assert f"warning: {encoder} has no chat template: rows are rendered for it with ### Instruction:" in said
    assert f"warning: {encoder} is no causal language model by its configuration (BertModel)" in said
    template, causal = command("check", out, "--model", encoder, "--json", home=home).json["warnings"]
    assert template in said
    assert causal in said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--tokenizer", "x"], "--tokenizer is for trainers' rows (give --for as well)"),
        (["--for", "trl", "--characters", "any"], "of another tokenizer (give --tokenizer as well)"),
        (["--for", "trl", "--tokenizer", "no/such/model"], "no model called 'no/such/model'"),
    ],
)
def test_what_cannot_be_carried_is_refused_before_anything_is_written(
    command: Command, pruned: Result, home: Path, tmp_path: Path, given: list[str], message: str
) -> None:
    said = command("export", pruned.run.run_id, "--out", tmp_path / "t.parquet", *given, home=home)
    assert (said.code, message in said.err) == (2, True), said.err
    assert not list(tmp_path.iterdir())
