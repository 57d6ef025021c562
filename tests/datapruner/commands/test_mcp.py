"""Tools for assistants over standard input and output, in a process of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from datapruner.assistants.home import HomeSource
from datapruner.commands import mcp
from datapruner.errors import NotFoundError, UsageError
from datapruner.result import Result
from tests.assistant import RefusedError, over_stdio
from tests.command_line import Said


def test_the_runs_of_this_machine_are_looked_at_by_every_tool(first_run: Result, tmp_path: Path) -> None:
    run, report = first_run.run.run_id, first_run.report
    scores = first_run.scores
    corpus = first_run.run.lineage["corpus"][:16]
    datasets, dataset, runs, detail, rows, explained, counts, missing = over_stdio(first_run.home).call(
        ("list_datasets", {}),
        ("describe_dataset", {"dataset": corpus}),
        ("list_runs", {"limit": 50}),
        ("describe_run", {"run": run}),
        ("scores", {"run": run, "by": "ppl", "highest": True, "limit": 3}),
        ("explain", {"run": run, "sample": "0"}),
        ("sql", {"query": "SELECT count(*) AS n FROM sample_scores", "run": run}),
        ("describe_run", {"run": "ffff"}),
    )
    assert corpus in {each["name"] for each in datasets["datasets"]}
    assert (dataset["rows"], sum(dataset["rejects"].values())) == (report.ingested, report.rejected)
    assert run in {each["run"] for each in runs["runs"]}
    assert detail["report"]["kept"] == report.kept
    measured = scores.filter(scores["ppl"].is_not_null()).sort(["ppl", "row"], descending=[True, False])
    assert [each["row"] for each in rows["rows"]] == measured["row"].head(3).to_list()
    assert explained["row"] == 0
    assert counts["rows"] == [[report.ingested]]
    assert isinstance(missing, RefusedError)


def test_the_start_of_a_name_that_several_datasets_have_is_refused(first_run: Result, tmp_path: Path) -> None:
    document = json.loads((first_run.run.folder / "run.json").read_text())
    for corpus in ("ab1", "ab2"):
        run = tmp_path / "runs" / f"{corpus}0000"
        shutil.copytree(first_run.run.folder, run)
        document["lineage"]["corpus"] = corpus
        (run / "run.json").write_text(json.dumps(document))
    source = HomeSource(tmp_path)
    with pytest.raises(UsageError, match=r"several datasets begin with ab \(list_datasets has"):
        source.dataset("ab")
    with pytest.raises(NotFoundError, match="there is no dataset ab1"):  # its corpus is gone
        source.dataset("ab1")


def test_what_is_missing_is_told_before_it_starts(
    command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DATAPRUNER_TOKEN", raising=False)
    none: Said = command("mcp", "--url", "http://127.0.0.1:1")
    assert (none.code, "no token" in none.err) == (2, True)
    monkeypatch.setenv("DATAPRUNER_TOKEN", "dpr_some")
    away: Said = command("mcp", "--url", "http://127.0.0.1:1")
    assert (away.code, "cannot be reached" in away.err) == (1, True)
    monkeypatch.setattr(mcp, "find_spec", lambda name: None)
    extra: Said = command("mcp")
    assert (extra.code, "pip install 'datapruner[mcp]'" in extra.err) == (2, True)
