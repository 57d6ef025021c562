"""Events of OpenLineage, as a server on this machine gets them from the official client."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jsonschema
import pyarrow.parquet as pq
import pytest
from openlineage.client.naming.dataset import GCS, S3, LocalFileSystem

import datapruner
from datapruner.errors import InputError
from datapruner.progress import Silent
from datapruner.request.config import RunConfig
from datapruner.request.settings import config_for
from datapruner.result import Result
from datapruner.service.context import Context
from datapruner.tracking.following import following
from datapruner.tracking.lineage import dataset_name
from tests.datapruner.service.conftest import config, context  # noqa: F401 (fixtures)
from tests.datapruner.service.jobs_here import dataset, ingest, upload, work
from tests.pipeline import Prune
from tests.tiny_model import LINES

PARENT = "airflow://prod/nightly.prune/01941f29-7c00-7087-8940-40e5b5c0b6f4"
_FACET = {
    "type": "object",
    "required": ["_producer", "_schemaURL"],
    "properties": {
        "_producer": {"type": "string", "format": "uri"},
        "_schemaURL": {
            "type": "string",
            "pattern": r"^https://openlineage\.io/spec/facets/\d+-\d+-\d+/\w+Facet\.json#/\$defs/\w+Facet$",
        },
    },
}
_FACETS = {"type": "object", "additionalProperties": _FACET}
_NAMED = {
    "type": "object",
    "required": ["namespace", "name"],
    "properties": {
        "namespace": {"type": "string", "minLength": 1},
        "name": {"type": "string", "minLength": 1},
        "facets": _FACETS,
        "inputFacets": _FACETS,
        "outputFacets": _FACETS,
    },
    "additionalProperties": False,
}
#: What the specification (2-0-2) asks of an event of a run.
EVENT = {
    "type": "object",
    "required": ["eventTime", "producer", "schemaURL", "run", "job"],
    "properties": {
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "eventTime": {"type": "string", "format": "date-time"},
        "producer": {"type": "string", "format": "uri"},
        "schemaURL": {"const": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"},
        "run": {
            "type": "object",
            "required": ["runId"],
            "properties": {"runId": {"type": "string", "format": "uuid"}, "facets": _FACETS},
        },
        "job": _NAMED,
        "inputs": {"type": "array", "items": _NAMED},
        "outputs": {"type": "array", "items": _NAMED},
    },
    "additionalProperties": False,
}


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """The client writes what it reads of the environment into it, in another form."""
    yield
    for name in [name for name in os.environ if name.startswith("OPENLINEAGE__")]:
        del os.environ[name]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What a server was sent, each found to be an event."""
    found: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/api/v1/lineage"
            found.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(201)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{server.server_port}")
        yield found
        server.shutdown()
        thread.join()
    for event in found:
        jsonschema.validate(event, EVENT, format_checker=jsonschema.FormatChecker())


def test_a_run_is_a_start_and_a_completion_with_its_datasets(
    events: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    corpus_file: Path,
    first_run: Result,
    options: dict[str, Any],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", PARENT)
    recipe, kept = tmp_path / "recipe.yaml", tmp_path / "kept.parquet"
    recipe.write_text(
        f"data: {corpus_file}\nmeasuring: {{model: {options['model']}}}\nmethods: [qtuning]\nkeep: 0.5\n"
        f"export: {{subset: {kept}}}\nlog_to: [openlineage]\n"
    )
    result = datapruner.run_recipe(recipe, home=first_run.home, device="cpu")
    start, complete = events
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"]
    assert start["job"] == complete["job"]
    assert (start["job"]["namespace"], start["job"]["name"]) == ("datapruner", "prune.motley.jsonl")
    assert complete["run"]["facets"]["parent"]["job"] == {
        "namespace": "airflow://prod",
        "name": "nightly.prune",
        "facets": {},
    }
    tags = {each["key"]: each["value"] for each in complete["run"]["facets"]["tags"]["tags"]}
    assert tags["datapruner.run"] == result.run.run_id
    assert tags["lineage.corpus"] == result.run.lineage["corpus"]
    [rows] = complete["inputs"]
    assert (rows["namespace"], rows["name"]) == ("file", str(corpus_file))
    assert [start["inputs"][0]["name"]] == [rows["name"]]
    assert rows["inputFacets"]["inputStatistics"]["rowCount"] == result.report.ingested
    assert rows["inputFacets"]["dataQualityMetrics"]["bytes"] == corpus_file.stat().st_size
    scores, subset = complete["outputs"]
    assert scores["name"] == str(result.run.database)
    assert scores["outputFacets"]["outputStatistics"]["rowCount"] == result.report.ingested
    described = {each["name"]: each.get("description") for each in scores["facets"]["schema"]["fields"]}
    assert described["reason"] == "why"
    statistics = subset["outputFacets"]["outputStatistics"]
    assert subset["name"] == str(kept)
    assert (statistics["rowCount"], statistics["size"]) == (result.report.kept, kept.stat().st_size)
    assert [each["name"] for each in subset["facets"]["schema"]["fields"]] == pq.read_schema(kept).names


def test_a_run_that_fails_and_one_that_is_stopped_say_so(
    events: list[dict[str, Any]], options: dict[str, Any], tmp_path: Path
) -> None:
    rows = [{"instruction": "", "output": ""}]
    with pytest.raises(InputError):
        datapruner.prune(rows, "length", 0.5, home=tmp_path, log_to=["openlineage"], **options)
    start, failed = events
    assert (failed["eventType"], failed["run"]["runId"]) == ("FAIL", start["run"]["runId"])
    assert failed["run"]["facets"]["errorMessage"]["message"]
    wanted = config_for(
        "hf_owner/rows", {"method": "target-cosine", "keep": "0.5"}, mapping={}, target="aim.jsonl"
    )
    with (
        pytest.raises(KeyboardInterrupt),
        following(["openlineage"], wanted, datapruner.progress.Silent(), pytest.fail),
    ):
        raise KeyboardInterrupt
    assert events[-1]["eventType"] == "ABORT"
    assert "errorMessage" not in events[-1]["run"]["facets"]
    assert [(each["namespace"], each["name"]) for each in events[-1]["inputs"]] == [
        ("hf://datasets", "hf_owner/rows"),
        ("file", str(Path("aim.jsonl").absolute())),
    ]


def test_a_worker_tells_where_the_service_has_it(
    events: list[dict[str, Any]],
    context: Context,  # noqa: F811
    config: RunConfig,  # noqa: F811
    corpus_file: Path,
) -> None:
    context = Context(
        context.settings.model_copy(update={"log_to": ["openlineage"]}),
        context.db,
        context.storage,
        context.devices,
        context.idle,
    )
    target = dataset(context)
    run = {"dataset_id": target.id, "version_id": None, "config": config.model_dump(mode="json")}
    done = work(context, ingest=ingest(target, upload(context, corpus_file)), run=run)
    _, complete = events
    assert complete["job"]["name"] == "prune.default.motley"
    tags = {each["key"]: each["value"] for each in complete["run"]["facets"]["tags"]["tags"]}
    assert (tags["datapruner.run"], tags["dataset"], tags["version"]) == (done.run_id, "motley", "1")
    [rows], [scores] = complete["inputs"], complete["outputs"]
    for each in (rows, scores):
        assert each["namespace"] == "file"
        assert Path(each["name"]).is_file()
        assert Path(each["name"]).is_relative_to(context.settings.files)
    assert rows["inputFacets"]["inputStatistics"]["rowCount"] == len(LINES)


def test_a_server_that_is_not_there_or_not_named_is_warned_of_once(
    prune: Prune, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first_run: Result
) -> None:
    monkeypatch.delenv("OPENLINEAGE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="not logged to openlineage: ValueError: it is not said") as said:
        again = prune("qtuning", 0.5, log_to=["openlineage"])
    assert len(said) == 1
    assert again.report == first_run.report


def test_a_parent_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", "nightly")
    said: list[str] = []
    with following(["openlineage"], config_for("rows.jsonl", {"method": "length"}), Silent(), said.append):
        pass
    assert said == [
        "not logged to openlineage: ValueError: OPENLINEAGE_PARENT_ID is not of the form namespace/job/run-id"
    ]


@pytest.mark.parametrize(
    ("place", "naming"),
    [
        ("s3://bucket/a/b.parquet", S3("bucket", "a/b.parquet")),
        ("s3a://bucket/a/b.parquet", S3("bucket", "a/b.parquet")),
        ("gs://bucket/a", GCS("bucket", "a")),
        ("/a/b c.jsonl", LocalFileSystem("/a/b c.jsonl")),
        ("file:///a/b.jsonl", LocalFileSystem("/a/b.jsonl")),
    ],
)
def test_places_are_named_as_the_official_client_names_them(place: str, naming: Any) -> None:
    assert dataset_name(place) == (naming.get_namespace(), naming.get_name())


def test_the_hub_and_other_stores_are_named_by_their_addresses(tmp_path: Path) -> None:
    assert dataset_name("tatsu-lab/alpaca") == ("hf://datasets", "tatsu-lab/alpaca")
    assert dataset_name("hf://datasets/tatsu-lab/alpaca") == ("hf://datasets", "tatsu-lab/alpaca")
    assert dataset_name("abfss://rows@me.dfs.core.windows.net/a/b") == (
        "abfss://rows@me.dfs.core.windows.net",
        "/a/b",
    )
    assert dataset_name("s3://key:secret@bucket/a") == ("s3://bucket", "a")
    assert dataset_name("https://me:secret@host:8080/a") == ("https://host:8080", "/a")
