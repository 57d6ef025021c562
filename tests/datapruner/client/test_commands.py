"""The commands with --url, against the real service: the same job, the same document, the same exit codes."""

from __future__ import annotations

import hashlib
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from datapruner.commands.remote import Shown
from datapruner.runs import folders
from datapruner.schemas.jobs import JobAnswer
from tests.command_line import Said
from tests.datapruner.client.test_session import JOB
from tests.served import SELDOM, Server
from tests.tiny_model import LINES, REJECTED, text_of

pytestmark = pytest.mark.slow
Command = Callable[..., Said]


@pytest.fixture
def at(command: Command, service: Server, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command at the service."""
    monkeypatch.setenv("DATAPRUNER_URL", service.url)
    monkeypatch.setenv("DATAPRUNER_TOKEN", service.token)
    return command


def said(ended: Said) -> Any:
    assert ended.code == 0, ended
    return ended.json


@pytest.fixture
def subset(at: Command, service: Server, corpus_file: Path, tmp_path: Path) -> dict[str, Any]:
    """What pruning a file says."""
    out, plain = tmp_path / "subset.parquet", tmp_path / "plain.jsonl"
    written = ("--out", out, "--plain", plain, "--model", service.model, "--json")
    return said(at("prune", corpus_file, "--method", "qtuning", "--keep", "0.5", *written))


def test_a_file_is_pruned_at_the_service_as_it_is_here(
    subset: dict[str, Any], at: Command, service: Server, corpus_file: Path, tmp_path: Path
) -> None:
    report = subset["report"]
    assert report["ingested"] == len(LINES)
    assert report["ingested"] == sum(report[name] for name in ("kept", "pruned", "rejected", "errored"))
    assert subset["url"] == service.url
    table = pq.read_table(tmp_path / "subset.parquet")
    assert table.num_rows == report["kept"] == subset["written"]["subset"]["rows"]
    kept = (tmp_path / "plain.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(kept) == report["kept"]
    assert all(line in map(text_of, LINES) for line in kept)
    document = folders.read_document(tmp_path / "subset.run.json")
    assert document["report"] == report
    shown = at("prune", subset["dataset"], "--keep", "50%", "--model", service.model)
    assert shown.code == 0, shown.err
    for text in ("all there already", "ingested", "Q1 harmful noise", "Rejected rows", "at http://127.0.0.1"):
        assert text in shown.out
    more = ("prune", subset["dataset"], "--keep", "75%", "--model", service.model)
    [warning] = said(at(*more, "--json"))["report"]["warnings"]
    assert f"warning: {warning}" in " ".join(at(*more).out.split())


def test_a_run_at_the_service_is_listed_explained_and_asked(
    subset: dict[str, Any], at: Command, tmp_path: Path
) -> None:
    listed = said(at("runs", "--json"))["runs"]
    assert listed[0]["id"] == subset["run"]
    assert subset["run"] in at("runs").out
    assert said(at("explain", "latest", "row:0", "--json"))["run"] == subset["run"]
    shown = at("explain", subset["run"], "row:0")
    assert "Name a colour." in shown.out
    assert at("explain", subset["run"], "row:999").code == 2
    compared = said(at("compare", "latest", subset["run"], "--json"))
    assert (compared["first"], compared["jaccard"]) == (subset["run"], 1.0)
    assert {each["spearman"] for each in compared["own_scores"] if each["first"] == each["second"]} == {1.0}
    assert "Own scores" in at("compare", subset["run"], subset["run"]).out
    assert at("compare", subset["run"], "run_none").code == 2
    query = f"select count(*) as n from {subset['dataset']}.sample_scores"
    assert said(at("sql", query, "--json"))["rows"] == [[len(LINES)]]
    page = tmp_path / "report.html"
    for run in (subset["run"], "latest"):
        report = said(at("report", run, "--out", page, "--json"))
        assert report["counts"]["kept"] == subset["report"]["kept"]
    assert subset["run"] in page.read_text(encoding="utf-8")


def test_a_statement_is_written_here_as_the_service_writes_it(
    at: Command, service: Server, tmp_path: Path
) -> None:
    sql = """
        SELECT * EXCLUDE (medium_enum, large_enum), 'NaN'::DOUBLE AS nan, 9007199254740993 AS long
        FROM test_all_types()
    """
    for kind in ("json", "csv", "jsonl"):
        answer = service.client.post("/v1/sql", json={"sql": sql, "format": kind})
        assert answer.status_code == 200, answer.text
        assert without_seconds(at("sql", sql, "--format", kind).out) == without_seconds(answer.text)
        path = tmp_path / f"rows.{kind}"
        assert at("sql", sql, "--out", path).code == 0
        assert without_seconds(path.read_text(encoding="utf-8")) == without_seconds(answer.text)
    refused = at("sql", sql, "--out", tmp_path / "rows.parquet")
    assert (refused.code, list(tmp_path.glob("*.parquet"))) == (2, [])
    assert "the result cannot be written as parquet" in refused.err


def without_seconds(document: str) -> str:
    return re.sub(r'"seconds":[0-9.e-]+', "", document, count=1)


def test_a_dataset_is_made_grown_scored_and_deleted(
    at: Command, service: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(text_of, LINES)), encoding="utf-8")
    rows = io.TextIOWrapper(io.BytesIO("\n".join(map(text_of, LINES[:5])).encode()))
    monkeypatch.setattr(sys, "stdin", rows)
    assert said(at("datasets", "create", "rows", "-", "--json"))["latest"]["rows"] == 5
    grown = said(at("datasets", "append", "rows", path, "--only-new", "--json"))
    assert (grown["number"], grown["new_rows"]) == (2, grown["rows"] - 5)
    assert "rows" in at("datasets", "list").out
    assert "Rejected" in at("datasets", "show", "rows").out
    rejects = said(at("datasets", "rejects", "rows", "--json"))["rejects"]
    assert len(rejects) == grown["rejected"] == len(REJECTED)
    scored = said(at("score", "rows", "-m", "qtuning", "-m", "donod", "--model", service.model, "--json"))
    assert scored["config"]["keep"] is None
    refused = at("datasets", "delete", "rows")
    assert refused.code == 2
    assert "cascade" in refused.err
    assert "would be deleted" in at("datasets", "delete", "rows", "--dry-run").out
    assert said(at("datasets", "delete", "rows", "--cascade", "--json"))["deleted"] is True


def test_jobs_and_exports_are_shown_and_fetched(subset: dict[str, Any], at: Command, tmp_path: Path) -> None:
    jobs = said(at("jobs", "list", "--state", "succeeded", "--json"))["jobs"]
    job = jobs[0]["id"]
    assert said(at("jobs", "wait", job, "--json")) == said(at("jobs", "show", job, "--json"))
    assert "succeeded" in at("jobs", "cancel", job).out
    out = tmp_path / "again.parquet"
    made = said(at("exports", "create", subset["run"], "--out", out, "--format", "plain-parquet", "--json"))
    assert pq.read_table(out).num_rows == made["rows"] == subset["report"]["kept"]
    assert at("exports", "fetch", made["id"], "--out", tmp_path / "fetched.parquet").code == 0
    assert (tmp_path / "fetched.parquet").read_bytes() == out.read_bytes()
    described = json.loads((tmp_path / "fetched.card" / "croissant.json").read_text())
    [file] = described["distribution"]
    assert (file["contentUrl"], file["sha256"]) == (
        "../fetched.parquet",
        hashlib.sha256(out.read_bytes()).hexdigest(),
    )
    assert "# " in (tmp_path / "fetched.card" / "README.md").read_text()
    listed = said(at("exports", "list", "--run", subset["run"], "--json"))["exports"]
    assert made["id"] in [export["id"] for export in listed]


def test_rows_for_a_trainer_come_with_what_to_train_them_with(
    subset: dict[str, Any], at: Command, service: Server, tmp_path: Path
) -> None:
    out = tmp_path / "rows.parquet"
    create = ("exports", "create", subset["run"], "--out", out, "--format", "axolotl", "--max-length", 40)
    made = said(at(*create, "--json"))
    table = pq.read_table(out)
    assert table.column_names == ["input_ids", "attention_mask", "labels"]
    assert max(map(len, table["input_ids"].to_pylist())) == made["counts"]["longest"] <= 40
    assert made["counts"]["rows"] == subset["report"]["kept"]
    text = at(*create).out
    configuration = yaml.safe_load(text[text.index("base_model") :])
    assert configuration["sequence_len"] == made["counts"]["longest"]
    assert configuration["base_model"] == service.model
    refused = at("exports", "create", subset["run"], "--out", tmp_path / "rows.csv", "--format", "trl")
    assert refused.code == 2
    assert "rows.csv is no name for trl" in refused.err


def test_schedules_tokens_and_projects(subset: dict[str, Any], at: Command, service: Server) -> None:
    schedule = ("--keep", "0.3", "--model", service.model, "--timezone", "Europe/Berlin", "--name", "nightly")
    schedule += ("--export", "trl")
    made = said(at("schedules", "create", subset["dataset"], SELDOM, *schedule, "--json"))
    assert (made["run"]["keep"]["share"], made["export_format"]) == (0.3, "trl")
    assert "paused" in at("schedules", "pause", "nightly").out
    assert "Europe/Berlin" in at("schedules", "resume", "nightly").out
    at_two = r"\d{4}-\d\d-\d\d 02:00\+0[12]:00 Europe/Berlin"
    assert re.search(rf"nightly .* {at_two}", at("schedules", "list").out)
    assert len(re.findall(at_two, at("schedules", "show", "nightly").out)) == 5
    assert at("schedules", "fires", "nightly").out == "no fires\n"
    fired = at("schedules", "fire", "nightly", "--json").json["id"]
    assert re.search(rf"\+0[12]:00 Europe/Berlin +started +{fired} ", at("schedules", "fires", "nightly").out)
    assert said(at("jobs", "wait", fired, "--json"))["result"]["measured"] == 0
    assert "Measured  0" in at("jobs", "show", fired).out
    assert said(at("schedules", "delete", "nightly", "--json"))["deleted"] is True

    token = said(at("tokens", "create", "ci", "--scope", "read", "--days", "1", "--json"))
    assert token["scopes"] == ["read"]
    listed = at("tokens", "list", "--json").out
    assert token["id"] in listed
    assert token["secret"] not in listed
    assert said(at("tokens", "revoke", token["id"], "--json"))["revoked_at"]
    assert at("tokens", "create", "ci", "--scope", "everything").code == 2

    assert said(at("projects", "create", "others", "--rows", "10", "--json"))["quota_rows"] == 10
    assert "of 2" in at("projects", "change", "others", "--jobs", "2").out
    assert {each["name"] for each in said(at("projects", "list", "--json"))["projects"]} >= {"others"}


def test_errors_of_the_service_are_one_line_and_a_code(at: Command, tmp_path: Path) -> None:
    missing = at("datasets", "show", "nowhere", "--json")
    assert missing.code == 2
    assert missing.err.startswith("error: ")
    assert missing.err.count("\n") == 1
    assert missing.json["error"]["type"] == "NotFoundError"
    for arguments in (
        ("prune", tmp_path, "--keep", "0.5"),
        ("prune", "org/corpus", "--keep", "0.5"),
        ("prune", "rows", "--keep", "0.5", "--device", "cpu"),
        ("sql", "select 1", "--run", "abc"),
        ("score", tmp_path / "rows.jsonl"),
        ("datasets", "create", "a", "--hub", "org/corpus", "--path", "b"),
    ):
        refused = at(*arguments)
        assert (refused.code, refused.err.count("\n")) == (2, 1), refused


def test_without_a_token_in_the_environment_this_machine_s_is_used(
    command: Command, service: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DATAPRUNER_TOKEN", raising=False)
    assert command("datasets", "list", "--url", service.url, home=service.home).code == 0
    assert command("datasets", "list", "--url", service.url, home=tmp_path).code == 2
    unreachable = command("datasets", "list", "--url", "http://127.0.0.1:9", "--json", home=service.home)
    assert unreachable.code == 1
    assert unreachable.json["error"]["type"] == "ServiceError"


def test_progress_of_a_job_becomes_stages_and_notes() -> None:
    told: list[Any] = []

    class Listener:
        def stage(self, *about: Any) -> None:
            told.append(about)

        def at(self, *about: Any) -> None:
            told.append(about)

        def note(self, text: str) -> None:
            told.append(text)

        def measured(self, rows: int, tokens: int) -> None:
            raise AssertionError

    shown = Shown(Listener())
    stage = {"stage": "measuring", "total": 10, "unit": "samples", "notes": ["a note"]}
    for changes in (
        {},
        {"state": "running", "progress": stage},
        {"state": "running", "progress": stage | {"done": 4, "tokens_per_second": 1234.5}},
    ):
        shown(JobAnswer.model_validate(json.loads(json.dumps(JOB | changes))))
    assert told == [
        ("waiting for a worker", None, ""),
        ("measuring", 10, "samples"),
        "a note",
        (0, 10, ""),
        (4, 10, "1,234 tokens/s"),
    ]
