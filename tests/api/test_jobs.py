"""Jobs over a real socket, on a service without workers: what waits stays until somebody ends it."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.served import Server, serving

ROWS = [{"instruction": "Name a colour.", "output": "Blue."}]


@pytest.fixture(scope="module")
def server(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("idle") / "home", tiny_folder, workers=0) as running:
        yield running


@pytest.fixture
def job(client: httpx.Client, request: pytest.FixtureRequest) -> str:
    """A job that waits."""
    made = client.post("/v1/datasets", json={"name": f"made_{time.time_ns()}", "rows": ROWS})
    assert made.status_code == 202, made.text
    return str(made.json()["id"])


def _events(client: httpx.Client, job: str, last: str | None = None) -> Generator[tuple[str, dict[str, Any]]]:
    """The id and data of every event until the stream ends."""
    headers = {} if last is None else {"Last-Event-ID": last}
    with client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as stream:
        assert stream.status_code == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in stream.iter_lines():
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                assert fields["event"] == "job"
                yield fields["id"], json.loads(fields["data"])
                fields = {}


def test_a_job_shows_how_it_stands_and_where_to_look(client: httpx.Client, job: str) -> None:
    found = client.get(f"/v1/jobs/{job}").json()
    assert (found["kind"], found["state"], found["attempt"]) == ("ingest", "queued", 0)
    assert found["links"]["self"] == f"/v1/jobs/{job}"
    assert found["links"]["events"] == f"/v1/jobs/{job}/events"


def test_a_waiting_job_is_cancelled_at_once_and_stays_so(client: httpx.Client, job: str) -> None:
    for _ in range(2):
        ended = client.post(f"/v1/jobs/{job}/cancel")
        assert ended.status_code == 200
        assert ended.json()["state"] == "cancelled"


def test_jobs_are_listed_by_state_and_kind_the_newest_first(client: httpx.Client, job: str) -> None:
    client.post(f"/v1/jobs/{job}/cancel")
    newer = client.post("/v1/datasets", json={"name": "newer", "rows": ROWS}).json()["id"]

    def listed(**asked: str | int) -> list[str]:
        return [
            each["id"] for each in client.get("/v1/jobs", params=asked).raise_for_status().json()["items"]
        ]

    assert listed(limit=2) == [newer, job]
    assert newer in listed(state="queued", kind="ingest")
    assert job not in listed(state="queued")
    assert job in listed(state="cancelled")
    assert listed(kind="run") == []
    assert client.get("/v1/jobs", params={"state": "lost"}).status_code == 422
    first = client.get("/v1/jobs", params={"limit": 1}).json()
    assert [each["id"] for each in first["items"]] == [newer]
    assert listed(limit=1, cursor=first["next"]) == [job]


def test_a_watcher_sees_changes_until_the_job_has_ended(client: httpx.Client, job: str) -> None:
    events = _events(client, job)
    first, seen = next(events)
    client.post(f"/v1/jobs/{job}/cancel")
    [(last, ended)] = events
    assert [seen["state"], ended["state"]] == ["queued", "cancelled"]
    assert int(first) < int(last)


def test_a_watcher_that_comes_back_misses_nothing_and_sees_nothing_twice(
    client: httpx.Client, job: str
) -> None:
    with closing(_events(client, job)) as events:
        first, _ = next(events)
    client.post(f"/v1/jobs/{job}/cancel")
    [(last, data)] = _events(client, job, last=first)
    assert data["state"] == "cancelled"
    assert list(_events(client, job, last=last)) == []
    assert [each for each, _ in _events(client, job, last="nonsense")] == [last]


def test_of_another_projects_job_nothing_is_told(server: Server, job: str) -> None:
    with server.as_token(server.new_token("read", "write", project="other")) as stranger:
        for method, path in (("GET", ""), ("POST", "/cancel"), ("GET", "/events")):
            answer = stranger.request(method, f"/v1/jobs/{job}{path}")
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/problem+json"
        assert stranger.get("/v1/jobs").json()["items"] == []
    assert server.client.get(f"/v1/jobs/{job}").json()["state"] == "queued"


@pytest.mark.parametrize("job_id", ["job_0", "%00", "..%2F..", "'"])
def test_there_is_no_such_job(client: httpx.Client, job_id: str) -> None:
    assert client.get(f"/v1/jobs/{job_id}").status_code == 404


def test_a_reader_may_not_cancel(server: Server, job: str) -> None:
    with server.as_token(server.new_token("read")) as reader:
        assert reader.post(f"/v1/jobs/{job}/cancel").status_code == 403


def test_a_dataset_stays_while_a_job_waits_to_fill_it(client: httpx.Client) -> None:
    made = client.post("/v1/datasets", json={"name": "awaited", "rows": ROWS}).json()
    refused = client.delete("/v1/datasets/awaited", params={"cascade": True})
    assert refused.status_code == 409
    assert made["id"] in refused.json()["detail"]
    client.post(f"/v1/jobs/{made['id']}/cancel")
    assert client.delete("/v1/datasets/awaited").json()["deleted"]


def test_those_who_watch_do_not_keep_the_service_from_ending(tiny_folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "home", tiny_folder, workers=0) as running:
        made = running.client.post("/v1/datasets", json={"name": "made", "rows": ROWS}).json()
        with running.client.stream("GET", made["links"]["events"]) as stream:
            lines = stream.iter_lines()
            next(lines)
            running.process.terminate()
            assert "cancelled" not in "".join(lines)  # the stream comes to its end, it is not cut off
            assert running.process.wait() == 0
        assert "graceful shutdown exceeded" not in running.log.read_text()
