"""Rewritten rows to train on: one truth in each, whatever they came as and are written as."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from datapruner.corpora.corpus import Corpus
from datapruner.corpora.ingest import ingest
from datapruner.input.shapes import RowParser, Sample
from datapruner.outputs import exports
from datapruner.rewriting import tables
from datapruner.rewriting.outcomes import Rewritten
from datapruner.rewriting.reasoning import ReasoningFinder
from datapruner.rewriting.training import RewrittenRows
from datapruner.rows import row_files
from tests.chats import of_sample

CUT = "Two rivers come to mind here:\nthe Rhine and the Nile."
REASONING = f"Let me see.\n\n{CUT}\n\nSo the sky is blue."
LEFT = "Let me see.\n\nSo the sky is blue."
FOLDED = f"<think>\n{REASONING}\n</think>\nBlue."
ASK = {"role": "user", "content": "Why?"}
SHAPES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "messages": (
        {"messages": [ASK, {"role": "assistant", "content": FOLDED}], "id": "a"},
        {},
    ),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": FOLDED}], "id": "a"},
        {},
    ),
    "alpaca": (
        {
            "instruction": "Why?",
            "input": "It is noon.",
            "output": FOLDED,
            "history": [["Hi.", "Hello."]],
            "system": "Be brief.",
            "id": "a",
        },
        {},
    ),
    "prompt-completion": ({"prompt": [ASK], "completion": FOLDED, "id": "a"}, {}),
    "question-answer with a reasoning column": (
        {"problem": "Why?", "thinking": REASONING, "solution": "Blue.", "id": "a"},
        {},
    ),
    "mapped columns": (
        {"q": "Why?", "a": FOLDED, "id": "a"},
        {"prompt": "q", "response": "a"},
    ),
    "columns that the shape does not read": (
        {
            "messages": [ASK, {"role": "assistant", "content": FOLDED}],
            "response": FOLDED,
            "Reasoning_Content": REASONING,
            "cot": CUT,
            "text": f"<|user|>Why?<|assistant|>{FOLDED}",
            "chosen": [{"role": "assistant", "content": FOLDED}],
            "id": "a",
        },
        {},
    ),
    "columns of other names that hold the reasoning": (
        {
            "prompt": "Why?",
            "completion": FOLDED,
            "deepseek_trace": REASONING,
            "trajectory": {"steps": REASONING.split("\n\n")},
            "raw": json.dumps([ASK, {"role": "assistant", "content": FOLDED}]),
            "id": "a",
        },
        {},
    ),
    "tokens of an earlier subset": (
        {
            "prompt": "Why?",
            "completion": FOLDED,
            "input_ids": [1, 2, 3],
            "labels": [-100, 2, 3],
            "attention_mask": [1, 1, 1],
            "token_keep": [None, True, True],
            "id": "a",
        },
        {},
    ),
}
PLAIN: dict[str, Any] = {"prompt": "Who?", "completion": "I."}


def training(
    folder: Path, rows: Any, mapping: dict[str, str] | None = None, chosen: Sequence[int] | None = None
) -> tuple[RewrittenRows, Corpus]:
    """These rows with their reasoning, where they have any, cut to `LEFT`."""
    path, database = folder / "corpus.duckdb", folder / "run.duckdb"
    ingest(rows, out=path, mapping=mapping)
    corpus = Corpus(path)
    finder, lines = ReasoningFinder(), []
    for batch in corpus.conversations():
        for row, sample_id, conversation in batch:
            found = finder.find(sample_id, conversation)
            outcome = (
                Rewritten("original", conversation.turns[-1].content, "no reasoning found")
                if found is None
                else Rewritten("rewritten", found.response(LEFT), "shorter")
            )
            lines.append(tables.line(row, sample_id, outcome))
    tables.write(database, iter([lines]))
    return RewrittenRows(database, corpus, chosen or corpus.sample_index()["row"].to_list(), None), corpus


def written(made: RewrittenRows, folder: Path, suffix: str) -> list[dict[str, Any]]:
    path = folder / f"out{suffix}"
    row_files.write(path, exports.rewritten_rows(made))
    if suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    return list(pa.parquet.read_table(path).to_pylist())


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_column_but_the_originals_holds_what_was_cut(shape: str, suffix: str, tmp_path: Path) -> None:
    row, mapping = SHAPES[shape]
    made, corpus = training(tmp_path, [row], mapping)
    [line] = written(made, tmp_path, suffix)
    assert line["messages"][-1]["content"] == f"<think>\n{LEFT}\n</think>\nBlue."
    trained = {name: value for name, value in line.items() if not name.startswith("original_")}
    assert "the Rhine" not in json.dumps(trained)
    assert trained.keys() - {"messages"} <= {"id", "row", "sample_id", "steps", "removed", "level"} | {
        name for name in trained if name.startswith(("rewrite_", "tokens_"))
    }
    assert line["id"] == "a"
    originals = {name: line[f"original_{name}"] for name in row if name != "id"}
    [came] = corpus.originals_json()
    assert originals == {name: value for name, value in json.loads(came).items() if name != "id"}


def test_rows_have_the_same_columns_with_what_is_said_of_them_or_without(tmp_path: Path) -> None:
    row = SHAPES["mapped columns"][0] | {"level": 5, "row": "x", "steps": ["a"], "reason": "b", "gold": "c"}
    made, _ = training(tmp_path, [row], {"prompt": "q", "response": "a"})
    moved = {"q": "original_q", "a": "original_a", "level": "original_level", "row": "original_row"}
    assert made.names == moved | {
        "steps": "original_steps",
        "id": "id",
        "reason": "reason",
        "gold": "gold",
    }
    [batch] = made.batches()
    assert batch.original.column_names == list(made.names.values())
    assert not set(batch.original.column_names) & {*batch.trained, *batch.about}


def test_the_names_are_those_of_the_whole_corpus_whichever_rows_are_kept(tmp_path: Path) -> None:
    rows = [PLAIN | {"notes": "short"}, SHAPES["question-answer with a reasoning column"][0]]
    few, _ = training(tmp_path, rows, chosen=[0])
    assert few.names["thinking"] == "original_thinking"
    assert few.names["notes"] == "notes"


def test_a_rewritten_row_can_be_rewritten_again_and_keeps_all_it_was(tmp_path: Path) -> None:
    row = {"messages": [ASK, {"role": "assistant", "content": FOLDED}], "original_messages": [ASK]}
    made, _ = training(tmp_path, [row])
    [line] = written(made, tmp_path, ".jsonl")
    assert line["original_messages"] == [ASK]
    assert line["original_original_messages"] == row["messages"]


def test_json_rows_keep_their_numbers_and_gain_no_keys(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    text = (
        '{"prompt": "Why?", "completion": %s, "big": 123456789012345678901234567890, "exact": 1.10}\n'
        '{"prompt":"Who?","completion":"I.","nested":{"b":null,"a":[1,{"c":"},\\""}]}}\n'
    )
    path.write_text(text % json.dumps(FOLDED))
    made, _ = training(tmp_path, path)
    first, second = (line.decode() for line in made.lines())
    assert '"big":123456789012345678901234567890,"exact":1.10}' in first
    assert second == (
        '{"messages":[{"role":"user","content":"Who?"},{"role":"assistant","content":"I."}],'
        '"original_prompt":"Who?","original_completion":"I.",'
        '"nested":{"b":null,"a":[1,{"c":"},\\""}]}}'
    )


def test_tools_and_calls_stay_with_the_conversation(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "now", "parameters": {}}}]
    row = {"messages": [ASK, {"role": "assistant", "content": FOLDED}], "tools": tools}
    made, _ = training(tmp_path, [row, {"messages": [ASK, {"role": "assistant", "content": "I."}]}])
    first, second = (json.loads(line) for line in made.lines())
    assert json.loads(first["tools"])[0]["function"]["name"] == "now"
    assert first["original_tools"] == tools
    assert "tools" not in second
    [batch] = made.batches()
    assert batch.trained["tools"].null_count == 1


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_ids_names_and_what_is_not_trained_on_stay_with_the_messages(suffix: str, tmp_path: Path) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": '{"zone": null}'}}
    chat = [
        ASK,
        {"role": "assistant", "content": None, "tool_calls": [call], "weight": 0},
        {"role": "tool", "content": "noon", "tool_call_id": "call_1", "name": "now"},
        {"role": "assistant", "content": FOLDED},
    ]
    made, corpus = training(tmp_path, [{"messages": chat}])
    [[(_, _, before)]] = corpus.conversations()
    [row] = written(made, tmp_path, suffix)
    after = RowParser().parse({"messages": row["messages"]}, padded=suffix == ".parquet")
    assert isinstance(after, Sample)
    assert of_sample(after).turns[:-1] == before.turns[:-1]
    assert of_sample(after).turns[1].untrained == "weight 0"
