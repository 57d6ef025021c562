"""The one-call door over a real socket: a file or rows in, the subset out."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from datapruner import Client
from datapruner.errors import UsageError
from datapruner.request.settings import beside
from tests.served import WAIT, Server

JSONL = {"Accept": "application/x-ndjson"}


@pytest.fixture(scope="module")
def form(server: Server) -> dict[str, str]:
    """A form that prunes with the tiny model."""
    return {"method": "qtuning", "keep": "0.5", "model": server.model}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _post(client: httpx.Client, corpus: Path, form: dict[str, str], **headers: str) -> httpx.Response:
    with corpus.open("rb") as file:
        return client.post("/v1/prune", data=form, files={"file": file}, headers=headers)


def test_a_file_comes_back_pruned_as_parquet(
    client: httpx.Client, corpus_file: Path, form: dict[str, str]
) -> None:
    answer = _post(client, corpus_file, form | {"name": "motley"}, **WAIT)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    assert answer.headers["content-disposition"] == 'attachment; filename="motley.parquet"'
    assert answer.headers["preference-applied"] == WAIT["Prefer"]
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    table = pq.read_table(io.BytesIO(answer.content))
    assert {"input_ids", "labels", "token_keep"} <= set(table.column_names)

    assert client.get(answer.headers["content-location"]).content == answer.content

    job = client.get(answer.headers["location"]).json()
    assert job["kind"] == "prune"
    assert job["state"] == "succeeded"
    assert client.get(job["links"]["subset"]).content == answer.content
    report = client.get(job["links"]["run"] + "/report").json()["report"]
    assert report["kept"] == table.num_rows
    assert client.get("/v1/datasets/motley").json()["latest"]["rows"] == len(_lines(corpus_file))


def test_rows_come_back_pruned_as_the_lines_that_they_were(
    client: httpx.Client, server: Server, corpus_file: Path, form: dict[str, str]
) -> None:
    rows = [json.loads(line) for line in _lines(corpus_file) if line.endswith("}")]
    body = {"rows": rows, "method": "qtuning", "keep": 0.5, "measuring": {"model": server.model}}
    answer = client.post("/v1/prune", json=body, headers=WAIT | JSONL)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    kept = [json.loads(line) for line in answer.text.splitlines()]
    assert 0 < len(kept) < len(rows)
    assert all(row in rows for row in kept)
    again = _post(client, corpus_file, form, **WAIT, **JSONL).text.splitlines()
    assert [json.loads(line) for line in again] == kept
    assert set(again) <= set(_lines(corpus_file))


def test_without_a_wish_to_wait_the_answer_is_the_job(
    client: httpx.Client, server: Server, corpus_file: Path, form: dict[str, str]
) -> None:
    answer = _post(client, corpus_file, form, Accept="application/json")
    assert answer.status_code == 202
    job = server.wait(answer.headers["location"])
    assert job["id"] == answer.json()["id"]
    assert job["state"] == "succeeded"
    dataset = client.get(job["links"]["dataset"]).json()
    assert dataset["name"].startswith("prune_")
    assert dataset["name"] not in _names(client)
    assert dataset["name"] in _names(client, unnamed=True)
    schema = client.get("/v1/sql/schema").json()
    assert dataset["name"] not in {table["schema_name"] for table in schema["tables"]}
    asked = {"sql": f"SELECT count(*) AS rows FROM {dataset['name']}.samples"}
    assert client.post("/v1/sql", json=asked).json()["rows"][0][0] == dataset["latest"]["accepted"]


def _names(client: httpx.Client, *, unnamed: bool = False) -> set[str]:
    found = client.get("/v1/datasets", params={"limit": 200, "unnamed": unnamed})
    return {dataset["name"] for dataset in found.json()["items"]}


@pytest.mark.parametrize("how", [{"keep": "count=1"}, {"keep": '{"count": 1}'}])
def test_a_form_keeps_one_sample_by_name(
    client: httpx.Client, corpus_file: Path, form: dict[str, str], how: dict[str, str]
) -> None:
    respelled = {("methods" if name == "method" else name): value for name, value in form.items()}
    answer = _post(client, corpus_file, respelled | how, **WAIT, **JSONL)
    assert answer.status_code == 200, answer.text
    assert len(answer.text.splitlines()) == 1


def test_a_wait_that_is_too_short_leaves_the_job_to_be_fetched(
    client: httpx.Client, server: Server, corpus_file: Path, form: dict[str, str]
) -> None:
    answer = _post(client, corpus_file, form, Prefer="wait=0")
    assert answer.status_code == 202
    with client.stream("GET", answer.json()["links"]["events"]) as stream:
        states = [json.loads(line[6:])["state"] for line in stream.iter_lines() if line.startswith("data: ")]
    assert states[-1] == "succeeded"  # what it was before depends on how quick it was


def test_a_job_that_fails_while_one_waits_answers_with_its_problem(
    client: httpx.Client, form: dict[str, str]
) -> None:
    files = {"file": ("notes.jsonl", b'{"colour": "blue"}\n')}
    answer = client.post("/v1/prune", data=form, files=files, headers=WAIT)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/invalid-input"
    assert "notes.jsonl" in answer.json()["detail"]
    assert client.get(answer.headers["location"]).json()["state"] == "failed"


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"method": "guessing"}, "method"),
        ({"options": '{"gamma": 1, "colour": "blue"}'}, "options"),
        ({"options": "{"}, "options"),
        ({"options": '{"a": NaN}'}, "options"),
        ({"keep": "most"}, "keep"),
        ({"keep": "1"}, "keep: 1 may mean one sample or all of them"),
        ({"methods": "ppl"}, "two spellings of one setting"),
        ({"mapping": '{"colour": "blue"}'}, "mapping"),
        ({"mapping": '{"prompt": "\\u0000"}'}, "mapping"),
        ({"seed": "-1"}, "seed"),
        ({"seed": str(2**70)}, "seed"),
        ({"token_keep": "nan"}, "token_keep"),
        ({"max_length": str(2**70)}, "measuring.max_length"),
        ({"colour": "blue"}, "colour"),
        ({"name": "../../etc"}, "name"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_stored(
    client: httpx.Client,
    server: Server,
    corpus_file: Path,
    form: dict[str, str],
    changed: dict[str, str],
    field: str,
) -> None:
    before = _stored(client, server)
    answer = _post(client, corpus_file, form | changed, **WAIT)
    assert answer.status_code == 422, answer.text
    assert field in f"{answer.json()['field']} {answer.json()['detail']}"
    assert _stored(client, server) <= before


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seed": -1}, ("seed", "seed: must be at least 0")),
        ({"max_length": 1}, ("measuring.max_length", "measuring.max_length: must be at least 2")),
        ({"preset": "magic"}, ("preset", "method qtuning has no preset 'magic'")),
        ({"reference": "smollm2-135m"}, ("measuring.reference", "no reference is read by qtuning")),
    ],
)
def test_what_is_wrong_with_a_run_is_told_alike_wherever_it_is_sent(
    client: httpx.Client, server: Server, corpus_file: Path, wrong: dict[str, Any], said: tuple[str, str]
) -> None:
    """In a form, with rows, for a dataset and in a schedule, where `run.` goes before the field's place."""
    asked = {"method": "qtuning", "keep": 0.5, **wrong}
    body = beside(asked)
    schedule = {"dataset": "motley", "cron": "0 2 * * *", "run": body}
    answers = [
        _post(client, corpus_file, {name: str(value) for name, value in asked.items()}),
        client.post("/v1/prune", json={"rows": [{"prompt": "p", "completion": "c"}], **body}),
        client.post("/v1/runs", json={"dataset": "motley", **body}),
        client.post("/v1/schedules", json=schedule),
    ]
    problems = [answer.json() for answer in answers]
    assert [answer.status_code for answer in answers] == [422] * 4
    told = {(each["field"].removeprefix("run."), each["detail"].removeprefix("run.")) for each in problems}
    assert told == {said}
    assert problems[-1]["field"] == f"run.{said[0]}"
    with Client(server.url, server.token) as caller, pytest.raises(UsageError) as caught:
        caller.runs.start_create("motley", **body)
    assert caught.value.field == said[0]
    assert caught.value.message.startswith(said[1])


def test_a_model_outside_of_the_import_roots_is_refused(
    client: httpx.Client, corpus_file: Path, form: dict[str, str]
) -> None:
    answer = _post(client, corpus_file, form | {"model": "/etc"})
    assert answer.status_code == 403
    assert answer.json()["field"] == "measuring.model"


def test_the_name_of_a_dataset_that_there_is_is_a_conflict(
    client: httpx.Client, server: Server, corpus_file: Path, form: dict[str, str]
) -> None:
    _post(client, corpus_file, form | {"name": "taken"}, **WAIT)
    before = _stored(client, server)
    assert _post(client, corpus_file, form | {"name": "taken"}, **WAIT).status_code == 409
    assert _stored(client, server) <= before


@pytest.mark.parametrize("accept", ["text/csv", "application/json", "*/*;q=0"])
def test_what_no_subset_comes_as_is_not_acceptable(
    client: httpx.Client, corpus_file: Path, form: dict[str, str], accept: str
) -> None:
    assert _post(client, corpus_file, form, **WAIT, Accept=accept).status_code == 406


def test_a_reader_may_not_prune(server: Server, corpus_file: Path, form: dict[str, str]) -> None:
    with server.as_token(server.new_token("read")) as reader:
        assert _post(reader, corpus_file, form).status_code == 403


def test_a_dataset_goes_with_what_depends_on_it_only_when_told_to(
    client: httpx.Client, server: Server, corpus_file: Path, form: dict[str, str]
) -> None:
    assert _post(client, corpus_file, form | {"name": "goner"}, **WAIT).status_code == 200
    dataset = client.get("/v1/datasets/goner").json()["id"]
    [run] = client.get("/v1/runs", params={"dataset": "goner"}).json()["items"]
    stated = client.delete("/v1/datasets/goner", params={"dry_run": True}).json()
    counts = {each["kind"]: each["count"] for each in stated["dependents"]}
    assert counts == {"versions": 1, "runs": 1, "exports": 1, "evaluations": 0, "schedules": 0}
    assert not stated["deleted"]
    refused = client.delete("/v1/datasets/goner")
    assert refused.status_code == 409
    assert "cascade" in refused.json()["remedy"]

    def files() -> list[Path]:
        everything = (server.home / "files").rglob("*")
        return [path for path in everything if path.is_file() and {dataset, run["id"]} & set(path.parts)]

    assert len(files()) >= 2
    assert client.delete("/v1/datasets/goner", params={"cascade": True}).json()["deleted"]
    for gone in ("/v1/datasets/goner", f"/v1/datasets/{dataset}", f"/v1/runs/{run['id']}"):
        assert client.get(gone).status_code == 404
    assert files() == []
    again = _post(client, corpus_file, form | {"name": "goner"}, **WAIT)
    assert again.status_code == 200


def _stored(client: httpx.Client, server: Server) -> set[str]:
    """Ids of the newest datasets and jobs, and the uploaded files, which go as their jobs end."""
    listed = [client.get(f"/v1/{path}limit=200").json() for path in ("datasets?unnamed=true&", "jobs?")]
    ids = {each["id"] for page in listed for each in page["items"]}
    return ids | {str(path) for path in (server.home / "files").rglob("uploads/*")}
