"""`datapruner rewrite` on the command line, and what `explain` shows of its runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from datapruner.errors import InputError, NotFoundError, UsageError
from datapruner.explaining.explain import explain
from datapruner.explaining.explanation import Piece
from tests.command_line import Said

ROWS: list[dict[str, Any]] = [
    {
        "question": "Why?",
        "thinking": "Let me see.\n\nTwo \x1b[31mrivers.\n\nSo blue.\n\nThe sky.",
        "answer": "Blue.",
    },
    {"question": "Why not?", "answer": "Green."},
    {"question": "No answer."},
    {"question": "Too long?", "thinking": "All work and no play.\n\n" * 40, "answer": "No."},
]
Command = Callable[..., Said]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("command-home")


@pytest.fixture(scope="module")
def rows(home: Path) -> Path:
    path = home / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def written(command: Command, rows: Path, home: Path, tiny_folder: Path) -> tuple[Path, Any]:
    """The training file, and what the command said as JSON. Only the first test that needs it measures."""
    out = home / "out.parquet"
    said = command(
        "rewrite", "asap", rows, "--max-token-ratio", "0.6", "-o", out, "--model", tiny_folder,
        "--device", "cpu", "--json", home=home,
    )  # fmt: skip
    assert said.code == 0, said.err
    return out, said.json


def test_the_command_writes_the_rows_and_says_what_became_of_all(written: tuple[Path, Any]) -> None:
    out, said = written
    assert pl.read_parquet(out)["row"].to_list() == [0, 1]
    report = said["report"]
    assert [report[name] for name in ("ingested", "kept", "rejected", "errored")] == [4, 2, 1, 1]
    assert said["written"] == {"subset": {"path": str(out), "rows": 2}}
    with duckdb.connect(said["database"], read_only=True) as connection:
        assert connection.execute("SELECT row FROM rewrites ORDER BY row").fetchall() == [(0,), (1,), (3,)]


def test_for_people_it_shows_counts_reasons_and_where_to_go_on(
    command: Command, written: tuple[Path, Any], rows: Path, home: Path, tiny_folder: Path
) -> None:
    said = command(
        "rewrite",
        "asap",
        rows,
        "--max-token-ratio",
        "0.6",
        "--model",
        tiny_folder,
        "--device",
        "cpu",
        home=home,
    )
    assert re.search(r"^  kept +2 +50.0 %$", said.out, re.MULTILINE)
    assert "rewrite: 0 rows dropped; error 1, original 1, rewritten 1, reasoning tokens before" in said.out
    assert "without a teacher" in said.out
    assert "no reasoning found" in said.out
    run, sample = written[1]["run"][:12], explain(written[1]["run"], "row:0", home).sample_id
    assert sample is not None
    assert f"datapruner explain {run} {sample[:4]}" in said.out
    assert "rewrite asap" in command("runs", home=home).out
    shown = command("explain", run, "row:0", home=home)
    assert shown.code == 0
    assert "[-" in shown.out
    assert "among the least" in shown.out
    assert "\x1b" not in shown.out


@pytest.mark.parametrize("method", ["random-steps", "longest-steps"])
def test_controls_of_steps_meet_the_same_budget_and_measure_nothing(
    command: Command, rows: Path, home: Path, tiny_folder: Path, method: str
) -> None:
    said = command(
        "rewrite", method, rows, "--max-token-ratio", "0.6", "--coherent", "--model", tiny_folder, "--json",
        home=home,
    )  # fmt: skip
    assert said.code == 0, said.err
    with duckdb.connect(said.json["database"], read_only=True) as connection:
        found = connection.execute(
            "SELECT status, tokens_after <= budget, dangling_references, dangling_colons, broken_blocks, "
            "list_transform(steps, lambda s: s.surprisal) FROM rewrites WHERE row = 0"
        ).fetchone()
        assert found is not None
        assert found[:5] == ("rewritten", True, 0, 0, 0)
        assert set(found[5]) == {None}
        [measured] = connection.execute("SELECT count(n_response_tokens) FROM sample_scores").fetchone() or ()
    assert measured == 0


def test_a_budget_out_of_range_ends_with_what_is_allowed(command: Command, rows: Path, home: Path) -> None:
    said = command("rewrite", "asap", rows, "--max-token-ratio", "1.5", home=home)
    assert said.code == 2
    assert "max_token_ratio: must be at most 1" in said.err


def test_a_method_that_needs_a_teacher_says_how_to_name_one(
    command: Command, rows: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATAPRUNER_TEACHER_BASE_URL", raising=False)
    for method in ("dap", "anchor"):
        said = command("rewrite", method, rows, home=home)
        assert said.code == 2
        assert "set DATAPRUNER_TEACHER_BASE_URL" in said.err


def test_a_place_that_cannot_be_written_is_refused_first(command: Command, rows: Path, home: Path) -> None:
    said = command("rewrite", "asap", rows, "-o", home / "no" / "out.parquet", home=home)
    assert said.code == 2
    assert "does not exist" in said.err


# What is explained


def test_steps_are_shown_with_surprisal_and_fate_and_their_text_struck_out(
    written: tuple[Path, Any], home: Path
) -> None:
    out, said = written
    found = explain(str(out), "row:0", home)
    assert found.run == said["run"]
    assert [step.text for step in found.steps] == ROWS[0]["thinking"].split("\n\n")
    assert all(step.surprisal is not None and step.why for step in found.steps)
    answer = found.turns[-1]
    assert (
        "".join(piece.text for piece in answer.pieces) == f"<think>\n{ROWS[0]['thinking']}\n</think>\nBlue."
    )
    pruned = "".join(piece.text for piece in answer.pieces if piece.state == "pruned")
    for step in found.steps:
        assert (step.text in pruned) != step.kept
    for target in (said["run"][:8], str(out.with_suffix(".run.json"))):
        assert explain(target, "row:0", home) == found
    assert found.sample_id is not None
    assert explain(str(out), found.sample_id[:10], home) == found


def test_rows_that_were_not_rewritten_are_explained_too(written: tuple[Path, Any], home: Path) -> None:
    run = written[1]["run"]
    kept = explain(run, "row:1", home)
    assert (kept.status, kept.turns[-1].pieces) == ("kept", (Piece("Green.", "kept"),))
    rejected = explain(run, "row:2", home)
    assert (rejected.status, rejected.turns, rejected.source["line"]) == ("rejected", (), 3)
    failed = explain(run, "row:3", home)
    assert failed.status == "error"
    assert {piece.state for turn in failed.turns for piece in turn.pieces} == {"untrained"}
    with pytest.raises(NotFoundError, match="no row 9 in run"):
        explain(run, "row:9", home)


def test_a_file_whose_run_is_gone_says_so(written: tuple[Path, Any], tmp_path: Path) -> None:
    alone = explain(str(written[0]), "row:0", tmp_path)
    assert "read from the subset alone" in alone.notes[0]
    [messages] = pl.read_parquet(written[0]).filter(row=0)["messages"].to_list()
    assert alone.turns[-1].pieces == (Piece(messages[-1]["content"], "kept"),)
    with pytest.raises(InputError, match=r"run .* is not in"):
        explain(str(written[0].with_suffix(".run.json")), "row:0", tmp_path)
    with pytest.raises(UsageError, match="no run with an id"):
        explain(written[1]["run"], "row:0", tmp_path)
