"""Rows pruned by command, questions to the run, and who is at the other end: a pipe, a terminal, a user."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import polars as pl
import psutil
import pyarrow.parquet as pq
import pytest

from datapruner import cli
from tests.command_line import COMMAND, PrunedHome, Said, installed
from tests.forked import Forked

Command = Callable[..., Said]


# The main job


def run_lines(said: Said) -> list[str]:
    assert (said.code, said.err) == (0, "")
    return said.out.splitlines()


@pytest.mark.slow
def test_pruning_says_all_that_a_script_needs(pruned_home: PrunedHome) -> None:
    document = pruned_home.document
    report = document["report"]
    assert report["ingested"] == 8
    assert report["ingested"] == sum(report[part] for part in ("kept", "pruned", "rejected", "errored"))
    assert (report["rejected"], report["errored"], report["duplicates"]) == (2, 1, 1)
    assert document["measured"] == 5
    assert document["config"]["keep"]["share"] == 0.5
    assert document["written"] == {"subset": {"path": str(pruned_home.subset), "rows": report["kept"]}}
    assert pq.read_table(pruned_home.subset).num_rows == report["kept"]
    assert pruned_home.subset.with_suffix(".run.json").is_file()
    assert Path(document["database"]).is_file()


@pytest.mark.slow
def test_pruning_reports_for_people_without_measuring_again(
    pruned_home: PrunedHome, command: Command, tmp_path: Path
) -> None:
    plain = tmp_path / "plain.jsonl"
    settings = ["--keep", "0.5", "--max-length", "64", "--overflow", "error"]
    said = command("prune", pruned_home.rows, *settings, "--plain", plain, home=pruned_home.home)
    lines = run_lines(said)
    text = " ".join(said.out.split())
    assert "5 rows of shape alpaca (instruction, input, output)" in text
    assert "messages (messages)" in text
    assert "nothing measured" in text
    assert re.search(r"ingested 8 100\.0 % kept \d .* rejected 2 25\.0 % errored 1 12\.5 %", text)
    assert "Trained tokens:" in text
    for quadrant in ("Q1 harmful noise", "Q2 valuable misconception", "Q3 redundant", "Q4 calibration"):
        assert quadrant in text
    assert "'output' is empty" in text
    assert "Rows that failed" in text
    kept_rows = pruned_home.document["report"]["kept"]
    assert f"  {plain}: plain rows, {kept_rows} rows" in lines
    suggested = next(line.strip() for line in lines if line.strip().startswith("datapruner explain"))
    again = command(*suggested.split()[1:], home=pruned_home.home)
    assert again.code == 0, again.err
    kept = [json.loads(line) for line in plain.read_text(encoding="utf-8").splitlines()]
    assert len(kept) == pruned_home.document["report"]["kept"]


@pytest.mark.slow
def test_all_of_a_report_fits_the_terminal(pruned_home: PrunedHome, command: Command, tmp_path: Path) -> None:
    settings = ["--keep", "0.5", "--max-length", "64", "--overflow", "error"]
    written = ["--plain", tmp_path / "plain.jsonl"]
    said = command("prune", pruned_home.rows, *settings, *written, home=pruned_home.home, terminal=True)
    assert max(map(len, run_lines(said))) <= 80


@pytest.mark.slow
def test_quiet_pruning_says_nothing(pruned_home: PrunedHome, command: Command) -> None:
    settings = ["--keep", "2", "--max-length", "64", "--overflow", "error", "--quiet"]
    said = command("prune", pruned_home.rows, *settings, home=pruned_home.home)
    assert said == Said(0, "", "")


@pytest.mark.slow
def test_rows_from_standard_input_are_pruned(pruned_home: PrunedHome) -> None:
    settings = ["--keep", "50%", "--max-length", "64", "--overflow", "error", "--json"]
    text = pruned_home.rows.read_text(encoding="utf-8")
    done = installed(["prune", "-", *settings], pruned_home.home, input=text)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["config"]["source"] is None
    assert document["measured"] == 0
    assert document["report"]["kept"] == pruned_home.document["report"]["kept"]


@pytest.mark.slow
def test_a_source_that_breaks_off_is_named_in_the_summary_and_the_document(
    pruned_home: PrunedHome, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, settings = tmp_path / "rows.jsonl", ["--keep", "50%", "--max-length", "64", "--overflow", "error"]
    file.write_text(pruned_home.rows.read_text(encoding="utf-8") + '{"instruction": "Half a')
    where = "line 9: the file ends inside this row; the rows before this point were read"

    def said(*more: str) -> Said:
        with file.open(encoding="utf-8") as text:
            monkeypatch.setattr(sys, "stdin", text)
            return command("prune", "-", *settings, *more, home=pruned_home.home)

    assert said("--json").json["report"]["truncated_sources"] == {"stdin": where}
    assert f"Truncated sources stdin, {where}" in " ".join(said().out.split())


@pytest.mark.slow
def test_a_run_file_replays_to_the_same_bytes(
    pruned_home: PrunedHome, command: Command, tmp_path: Path
) -> None:
    again = tmp_path / "again.parquet"
    run_file = pruned_home.subset.with_suffix(".run.json")
    said = command("replay", run_file, "--out", again, "--json", home=pruned_home.home)
    assert said.json["run"] == pruned_home.run
    assert again.read_bytes() == pruned_home.subset.read_bytes()


@pytest.mark.slow
def test_several_methods_score_together(pruned_home: PrunedHome, command: Command, tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    arguments = ["score", pruned_home.rows, "-m", "qtuning", "-m", "donod", "-o", "donod.don_sign=1"]
    arguments += ["--max-length", "64", "--overflow", "error"]
    document = command(*arguments, "--out", out, "--json", home=pruned_home.home).json
    chosen = {each["name"]: each["options"] for each in document["config"]["methods"]}
    assert chosen == {"qtuning": {}, "donod": {"don_sign": 1}}
    assert document["measured"] == 0
    scores = pl.read_parquet(out)
    assert {"ppl", "entropy", "don", "nod", "donod"} <= set(scores.columns)
    lines = run_lines(command(*arguments, home=pruned_home.home))
    assert any(line.startswith("donod ") for line in lines)
    assert any("scored" in line for line in lines)


@pytest.mark.slow
def test_nothing_measured_is_exit_code_three(
    pruned_home: PrunedHome, command: Command, tmp_path: Path
) -> None:
    rows = tmp_path / "long.jsonl"
    rows.write_text(pruned_home.rows.read_text(encoding="utf-8").splitlines()[5] + "\n")
    settings = ["--keep", "0.5", "--max-length", "64", "--overflow", "error", "--json"]
    said = command("prune", rows, *settings, home=pruned_home.home)
    assert said.code == 3
    assert said.json["error"]["type"] == "NothingSurvivedError"


# Questions afterwards


@pytest.mark.slow
def test_runs_are_listed_the_newest_first(pruned_home: PrunedHome, command: Command) -> None:
    listed = command("runs", "--json", home=pruned_home.home).json["runs"]
    assert pruned_home.run in {run["run"] for run in listed}
    assert [run["published"] for run in listed] == sorted((r["published"] for r in listed), reverse=True)
    lines = run_lines(command("runs", home=pruned_home.home))
    assert any(line.startswith(pruned_home.run) and "rows.jsonl" in line for line in lines)
    short = command("runs", home=pruned_home.home, terminal=True).out
    assert pruned_home.run[:12] in short
    assert max(map(len, short.splitlines())) <= 80


@pytest.mark.slow
def test_sql_answers_as_table_json_csv_and_parquet(
    pruned_home: PrunedHome, command: Command, tmp_path: Path
) -> None:
    def ask(query: str, *more: object) -> Said:
        return command("sql", query, "--run", pruned_home.run[:8], *more, home=pruned_home.home)

    query = (
        "select sample_id, row, keep, kept_tokens from sample_scores left join masks using (row) order by row"
    )
    query = query.replace("sample_id", "sample_scores.sample_id")
    expected = pl.read_parquet(pruned_home.subset)["row"].to_list()
    answer = ask(query, "--json").json
    assert [column["name"] for column in answer["columns"]] == ["sample_id", "row", "keep", "kept_tokens"]
    assert [row for _, row, keep, _ in answer["rows"] if keep] == expected
    assert not answer["truncated"]
    table = list(csv.DictReader(ask(query, "--format", "csv").out.splitlines()))
    assert [int(row["row"]) for row in table if row["keep"] == "true"] == expected
    assert json.loads(table[expected[0]]["kept_tokens"]) == answer["rows"][expected[0]][3]
    lines = [json.loads(line) for line in ask(query, "--format", "jsonl").out.splitlines()]
    assert [list(line.values()) for line in lines] == answer["rows"]
    said = ask(query, "--out", tmp_path / "answer.parquet")
    assert (said.out, "8 rows written" in said.err) == ("", True)
    assert pl.read_parquet(tmp_path / "answer.parquet").height == 8
    document = ask(query, "--out", tmp_path / "again.parquet", "--json").json
    assert document["run"] == pruned_home.run
    assert document["written"] == {"rows": {"path": str(tmp_path / "again.parquet"), "rows": 8}}
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "answer.parquet").read_bytes()
    ask(query, "--out", tmp_path / "answer.json")
    assert json.loads((tmp_path / "answer.json").read_text(encoding="utf-8"))["rows"] == answer["rows"]
    lines = run_lines(ask("select row, status from sample_scores order by row"))
    assert lines[2].split() == ["0", "kept" if answer["rows"][0][2] else "pruned"]


@pytest.mark.slow
def test_sql_reads_the_corpus_too_and_keeps_columns_of_one_name_apart(
    pruned_home: PrunedHome, command: Command
) -> None:
    query = (
        "select t.row, s.row from corpus.turns t join sample_scores s using (row) where turn = 0 order by 1"
    )
    answer = command("sql", query, "--run", pruned_home.run, "--json", home=pruned_home.home).json
    assert [column["name"] for column in answer["columns"]] == ["row", "row_1"]
    assert answer["rows"][0] == [0, 0]


@pytest.mark.slow
def test_sql_says_when_rows_are_left_out(pruned_home: PrunedHome, command: Command) -> None:
    said = command("sql", "from range(500)", "--rows", "3", "--json", home=pruned_home.home)
    assert (len(said.json["rows"]), said.json["truncated"]) == (3, True)
    assert "raise --rows" in said.err
    lines = run_lines(command("sql", "from range(500)", home=pruned_home.home, terminal=True))
    assert lines[-1] == "400 more rows; --format csv has them all"


@pytest.mark.slow
def test_without_a_terminal_every_row_is_a_whole_line(pruned_home: PrunedHome, command: Command) -> None:
    query = "select sample_id, repeat('long ', 50) || chr(10) || 'end' as text, range as n from range(150), "
    query += "(select sample_id from sample_scores where row = 0)"
    lines = run_lines(command("sql", query, "--run", pruned_home.run, home=pruned_home.home))
    assert len(lines) == 2 + 150
    assert re.fullmatch(rf"[0-9a-f]{{32}}   {'long ' * 50}␊end   149", lines[-1])


@pytest.mark.slow
def test_sql_that_is_wrong_is_one_line(pruned_home: PrunedHome, command: Command) -> None:
    said = command("sql", "selec 1", home=pruned_home.home)
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "syntax error" in said.err
    assert "^" not in said.err


# A pipe, a terminal and a user


def run_unread(commands: list[list[str]], codes: Path) -> None:
    """A task: run commands one after the other, each writing to a pipe that nobody reads."""
    ended = []
    for arguments in commands:
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, sys.stdout.fileno())
        os.close(writing)
        ended.append(cli.main(arguments))
    codes.write_text(json.dumps(ended))


def test_a_closed_pipe_changes_no_exit_code(pruned_home: PrunedHome, tmp_path: Path) -> None:
    """Of any command that runs here, each way that it says things; all in one process, as each would be."""
    home, run, rows = pruned_home.home, pruned_home.run, str(pruned_home.rows)
    asked = [["--keep", "0.5"], ["--max-length", "64"], ["--overflow", "error"]]
    commands: list[tuple[list[str], int]] = [
        (["prune", rows, *chain(*asked)], 0),
        (["score", rows, *chain(*asked[1:])], 0),
        (["replay", str(pruned_home.subset.with_suffix(".run.json"))], 0),
        (["dedup", rows], 0),
        (["explain", run, "row:0"], 0),
        (["sql", "from range(9999)"], 0),
        (["sql", "from range(9999)", "--format", "csv"], 0),
        (["runs"], 0),
        (["methods"], 0),
        (["methods", "qtuning"], 0),
        (["models"], 0),
        (["db", "current"], 0),
        (["doctor"], 0),
        (["--help"], 0),
        (["prune", "--help"], 0),
        (["--version"], 0),
        (["explain", run, "row:999"], 2),
    ]
    wanted = [(each, code) for each, code in commands]
    wanted += [
        ([*each, "--json"], code)
        for each, code in commands
        if "-" not in each[-1][:1] and each[-1] not in ("csv", "doctor")  # which takes seconds
    ]
    errors = tmp_path / "errors"
    process = Forked(
        run_unread,
        [each for each, _ in wanted],
        tmp_path / "codes",
        environment={**os.environ, "DATAPRUNER_HOME": str(home)},
        said=tmp_path / "said",
        errors=errors,
    )
    assert process.wait() == 0, errors.read_text()
    assert json.loads((tmp_path / "codes").read_text()) == [code for _, code in wanted], errors.read_text()
    assert "Broken pipe" not in errors.read_text()


def test_a_reader_that_has_enough_is_no_failure_of_the_command(command: Command, tmp_path: Path) -> None:
    script = f'{COMMAND} methods | head -n 1; echo "${{PIPESTATUS[@]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["0 0"]
    assert done.stderr == ""


def on_terminal(arguments: list[str], home: Path, interrupt_at: bytes | None = None) -> tuple[int, str]:
    """Run the installed command on a pseudo-terminal; interrupt it once `interrupt_at` is shown."""
    environment = {**os.environ, "DATAPRUNER_HOME": str(home), "COLUMNS": "80", "TERM": "xterm-256color"}
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how reading ends when the terminal's last user has gone
        while chunk := os.read(ours, 65536):
            shown += chunk
            if interrupt_at is not None and interrupt_at in shown:
                os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does, to the workers too
                interrupt_at = None
    os.close(ours)
    return process.wait(), shown.decode()


def left_behind(home: Path) -> list[str]:
    """Processes that still run for `home`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("DATAPRUNER_HOME") == str(home):
                found.append(" ".join(process.cmdline()))
    return found


@pytest.mark.slow
def test_ctrl_c_while_measuring_ends_in_one_line_and_leaves_no_worker(smollm2: Path, tmp_path: Path) -> None:
    home, rows = tmp_path / "home", tmp_path / "rows.jsonl"
    home.mkdir()
    (home / "models").symlink_to(smollm2.parent)
    lines = (
        {"instruction": f"Count to {n}.", "output": "One, two. " * 20} for n in range(5000)
    )  # many minutes
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, shown = on_terminal(["prune", str(rows), "--keep", "1.0"], home, interrupt_at=b"measuring")
    assert code == 130, shown
    assert "Traceback" not in shown
    assert shown.rstrip().splitlines()[-1].endswith("interrupted")
    assert "0/5,000 samples" in shown
    assert not list(home.glob("runs/*"))
    assert left_behind(home) == []


@pytest.mark.slow
def test_on_a_terminal_kept_tokens_are_green_and_pruned_ones_struck_through(pruned_home: PrunedHome) -> None:
    code, shown = on_terminal(["explain", pruned_home.run, "row:3"], pruned_home.home)
    assert code == 0
    assert re.search(r"\x1b\[9;31mBlue is one of them\.\x1b\[0m", shown)
