"""Rows as people report them, from the file to the text that is trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from datapruner.corpora.corpus import Corpus
from datapruner.corpora.ingest import ingest
from datapruner.errors import InputError
from scorers.conversations.chat import ChatRenderer, Encoded, RenderError
from tests import chat_templates as ct

CASES = Path(__file__).parents[4] / "shared" / "cases" / "inputs"
ARGUMENTS = '{"city": "Oslo"}'


def case(name: str) -> Path:
    if not (CASES / name).exists():
        pytest.skip(f"the reported row {name} is not beside the repository")
    return CASES / name


def template(name: str) -> str:
    return case(f"templates/{name}.jinja").read_text(encoding="utf-8")


def rendered(path: Path, template: str, out: Path) -> list[tuple[str, list[str]] | str]:
    """For each sample the whole text and what is trained on, or why it is not."""
    tokenizer: Any = ct.byte_level(template)
    ingest(path, out=out / "corpus.duckdb")
    found: list[tuple[str, list[str]] | str] = []
    with Corpus(out / "corpus.duckdb") as corpus:
        conversations = [each for batch in corpus.conversations() for _, _, each in batch]
    for result in ChatRenderer(tokenizer).render(conversations):
        if isinstance(result, RenderError):
            found.append(result.reason)
            continue
        assert isinstance(result, Encoded), result
        trained = [
            tokenizer.decode(result.input_ids[result.position[result.turn == turn]])
            for turn in sorted(set(result.turn.tolist()))
        ]
        found.append((tokenizer.decode(result.input_ids), trained))
    return found


def only(path: Path, template: str, out: Path) -> tuple[str, list[str]]:
    [found] = rendered(path, template, out)
    assert not isinstance(found, str), found
    return found


def test_a_reasoning_column_is_trained_on_under_a_template_that_spaces_it(tmp_path: Path) -> None:
    found = rendered(case("01_reasoning_column.jsonl"), ct.QWEN3, tmp_path)
    assert len(found) == 4
    assert found[0][1] == ["<think>\nAdd 2 to 2.\n</think>\n\n4.<|im_end|>"]


def test_a_call_without_content_is_trained_on(tmp_path: Path) -> None:
    _, (asked, _) = only(case("02_tool_call_null_content.jsonl"), ct.QWEN3, tmp_path)
    assert asked.startswith("<tool_call>")
    assert ARGUMENTS in asked


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("03_tool_call_arguments.jsonl", ct.JOINED_ARGUMENTS),
        ("04_tool_call_ids.jsonl", "mistral_v3"),
        ("05_tool_call_dropped.jsonl", "r1"),
        ("06_tools_dropped.jsonl", "phi4mini"),
    ],
)
def test_an_agent_s_row_is_written_whole(name: str, family: str, tmp_path: Path) -> None:
    path = case(name)
    text, (asked, told) = only(path, family if "{" in family else template(family), tmp_path)
    assert ARGUMENTS in asked
    assert "It rains." in told
    for piece in ("Rain in Oslo?", "Tells the weather.", "unit", "rain"):
        assert piece in text
    if "ids" in name:
        assert '"id": "abcdefghi"' in asked


def test_a_message_of_weight_zero_is_not_trained_on(tmp_path: Path) -> None:
    text, trained = only(case("07_message_weight.jsonl"), ct.CHATML, tmp_path)
    assert "BAD" in text
    assert trained == ["GOOD<|im_end|>"]


def test_messages_in_cells_of_a_csv_are_messages(tmp_path: Path) -> None:
    text, trained = only(case("08_prompt_completion_json.csv"), ct.CHATML, tmp_path)
    assert trained == ["Hi.<|im_end|>"]
    assert "role" not in text


def test_a_null_argument_is_trained_on(tmp_path: Path) -> None:
    _, (asked, _) = only(case("09_null_argument.jsonl"), ct.QWEN3, tmp_path)
    assert '{"city": "Oslo", "unit": null}' in asked


def test_two_system_texts_reach_a_template_without_a_system_role(tmp_path: Path) -> None:
    text, _ = only(case("11_two_systems.jsonl"), ct.GEMMA, tmp_path)
    assert text.startswith("<s><start_of_turn>user\nBe kind.\n\nBe brief.\n\nHi<end_of_turn>")


def test_a_system_text_in_mid_conversation_reaches_a_template_that_passes_over_it(tmp_path: Path) -> None:
    text, _ = only(case("12_mid_system.jsonl"), ct.CHANNELS, tmp_path)
    assert "<|start|>user<|message|>Answer in French.\n\nAnd now?<|end|>" in text


def test_the_fault_that_is_shown_is_the_row_s(tmp_path: Path) -> None:
    [found] = rendered(case("13_wrong_reason.jsonl"), ct.GEMMA, tmp_path)
    assert isinstance(found, str)
    assert "alternate" in found


def test_flags_of_a_typed_source_are_followed_too(tmp_path: Path) -> None:
    chats = [
        [
            {"role": "user", "content": "q", "weight": None},
            {"role": "assistant", "content": "a", "weight": 0.0},
        ]
    ]
    pl.DataFrame({"messages": chats}).write_parquet(tmp_path / "rows.parquet")
    with pytest.raises(InputError, match="nothing_to_train_on"):
        ingest(tmp_path / "rows.parquet", out=tmp_path / "corpus.duckdb")


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("10_image_struct.parquet", {"instruction", "output", "image"}),
        ("10b_list_of_binary.parquet", {"instruction", "output", "shots"}),
        ("10_mixed_folder", {"instruction", "output", "image"}),
        ("14_keys_differ.jsonl", {"messages"}),
    ],
)
def test_what_rows_came_with_comes_out_as_columns_and_as_json(
    name: str, keys: set[str], tmp_path: Path
) -> None:
    report = ingest(case(name), out=tmp_path / "corpus.duckdb")
    assert report.rejected == 0
    with Corpus(tmp_path / "corpus.duckdb") as corpus:
        rows = [row for batch in corpus.originals() for row in batch.to_pylist()]
        lines = [json.loads(line) for line in corpus.originals_json()]
    assert len(rows) == len(lines) == report.rows
    assert {key for row in rows for key in row} == keys == {key for line in lines for key in line}
    if name == "14_keys_differ.jsonl":
        assert lines == [json.loads(line) for line in case(name).read_text().splitlines()]
        assert rows[0]["messages"][0] == {"role": "user", "content": "q", "weight": None}
