"""`datapruner dedup` and `datapruner contamination` as they are typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tests.command_line import Said

TEXT = "The moon is about 384 thousand kilometres away from the Earth, on average, as the tides know well."
ROWS = [
    {"instruction": "How far is the moon?", "output": TEXT},
    {"instruction": "Name a colour.", "output": "Blue \x1b[31mor red."},
    {"instruction": "How far is the moon?", "output": TEXT.replace("well", "best")},
    {"instruction": "Say nothing.", "output": ""},
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n")
    return path


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    path = tmp_path / "moon.test.jsonl"
    path.write_text(json.dumps({"question": TEXT, "label": 1}) + "\n")
    return path


def test_dedup_writes_the_kept_rows_and_says_why_the_others_went(
    command: Callable[..., Said], rows: Path, tmp_path: Path
) -> None:
    kept, verdicts = tmp_path / "kept.jsonl", tmp_path / "verdicts.parquet"
    said = command("dedup", rows, "--out", kept, "--verdicts", verdicts)
    assert said.code == 0, said.err
    assert "duplicate of row 0 at Jaccard 0." in said.out
    assert [json.loads(line) for line in kept.read_text().splitlines()] == ROWS[:2]
    assert pl.read_parquet(verdicts)["status"].to_list() == ["kept", "kept", "dropped", "rejected"]


def test_dedup_in_json_is_one_document_whose_counts_add_up(command: Callable[..., Said], rows: Path) -> None:
    document = command("dedup", rows, "--threshold", "0.8", "--json").json
    assert document["counts"] == {"ingested": 4, "kept": 2, "dropped": 1, "rejected": 1}
    assert document["settings"] == {"threshold": 0.8, "shingle": 3, "part": "all"}
    [dropped] = document["dropped"]
    assert (dropped["row"], dropped["duplicate_of"]) == (2, 0)
    assert 0.8 <= dropped["jaccard"] < 1


def test_contamination_shows_the_words_that_are_shared(
    command: Callable[..., Said], rows: Path, benchmark: Path
) -> None:
    document = command("contamination", rows, "--against", benchmark, "--json").json
    assert document["counts"] == {"ingested": 4, "kept": 1, "dropped": 2, "rejected": 1}
    assert document["settings"]["ngram"] == {"moon": 13}
    assert document["dropped"][0]["matches"][0]["text"].startswith("the moon is about 384 thousand")
    said = command("contamination", rows, "-a", f"space={benchmark}", "--convention", "8-gram")
    assert "holds text of space row 0" in " ".join(said.out.split())


def test_nothing_kept_is_exit_code_3_after_the_report(
    command: Callable[..., Said], benchmark: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "one.jsonl"
    rows.write_text(json.dumps(ROWS[0]) + "\n")
    said = command("contamination", rows, "-a", benchmark, "--out", tmp_path / "kept.jsonl")
    assert said.code == 3
    assert "holds text of moon row 0" in " ".join(said.out.split())
    assert "contamination left none of 1 rows" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dedup", "ROWS", "--threshold", "2"], "threshold: must be at most 1, not '2'"),
        (["dedup", "ROWS", "--out", "kept.txt"], "cannot write .txt"),
        (["dedup", "ROWS", "--out", "k.jsonl", "--verdicts", "k.jsonl"], "name the same file"),
        (["contamination", "ROWS"], "Missing option"),
        (["contamination", "ROWS", "-a", "SET", "-a", "SET"], "two evaluation sets are called moon"),
        (["contamination", "ROWS", "-a", "nowhere.jsonl"], "no such file or folder"),
        (["contamination", "ROWS", "-a", "SET", "--column", "answer"], "there is no column 'answer'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    command: Callable[..., Said], rows: Path, benchmark: Path, arguments: list[str], message: str
) -> None:
    named = {"ROWS": rows, "SET": benchmark}
    said = command(*[named.get(each, each) for each in arguments])
    assert said.code == 2
    assert message in said.err
    assert said.err.count("\n") == 1


def test_gate_shows_the_defects_and_each_rule_can_be_switched_off(
    command: Callable[..., Said], tmp_path: Path
) -> None:
    rows = [
        {"instruction": "Name a colour.", "output": "Blue"},
        {"instruction": "Draw a horse.", "output": "As an AI language model, I cannot draw pictures."},
    ]
    path, kept = tmp_path / "talk.jsonl", tmp_path / "kept.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = command("gate", path, "--out", kept)
    assert 'defect: a refusal and nothing else: "As an AI' in said.out
    assert [json.loads(line) for line in kept.read_text().splitlines()] == rows[:1]
    document = command("gate", path, "--refusals", "false", "--json").json
    assert document["counts"] == {"ingested": 2, "kept": 2, "dropped": 0, "rejected": 0}
    assert document["settings"]["refusals"] is False
