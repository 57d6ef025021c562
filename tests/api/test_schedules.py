"""Schedules over a real socket: from the request to the job, the subset and the signed webhook."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from standardwebhooks import Webhook

from tests.served import WAIT, Server, serving
from tests.waiting import until


@dataclass
class Receiver:
    """A webhook's receiver: the headers and body of what it was sent."""

    url: str
    seen: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.seen.append((dict(self.headers), body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Not to standard error."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield receiver
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that new rows come to."""
    folder = tmp_path_factory.mktemp("imports")
    add_rows(folder, 0, 20)
    return folder


@pytest.fixture(scope="module")
def server(tiny_folder: Path, imports: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("service") / "home"
    roots = f"{tiny_folder}:{imports}"
    with serving(home, tiny_folder, import_roots=roots, webhook_hosts="127.0.0.1") as running:
        source = {"kind": "path", "path": str(imports)}
        made = running.client.post("/v1/datasets", json={"name": "nightly", "source": source}, headers=WAIT)
        assert made.status_code == 201, made.text
        yield running


@pytest.fixture(scope="module")
def wanted(server: Server) -> dict[str, Any]:
    """A body that makes a schedule, which fires in half a day."""
    run = {"method": "qtuning", "keep": 0.5, "measuring": {"model": server.model}}
    hour = (datetime.now(ZoneInfo("Europe/Berlin")).hour + 12) % 24
    return {"dataset": "nightly", "cron": f"0 {hour} * * *", "timezone": "Europe/Berlin", "run": run}


def add_rows(folder: Path, first: int, last: int) -> None:
    rows = [{"instruction": f"What is {n} plus 1?", "output": f"It is {n + 1}."} for n in range(first, last)]
    text = "\n".join(json.dumps(row) for row in rows)
    (folder / f"{first}.jsonl").write_text(text, encoding="utf-8")


def create(client: httpx.Client, wanted: dict[str, Any], **more: Any) -> dict[str, Any]:
    made = client.post("/v1/schedules", json=wanted | more)
    assert made.status_code == 201, made.text
    schedule: dict[str, Any] = made.json()
    assert made.headers["location"] == f"/v1/schedules/{schedule['id']}"
    return schedule


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    about: dict[str, Any] = answer.json()
    return about


def test_a_new_schedule_says_when_it_fires_next_and_shows_its_secret_once(
    client: httpx.Client, wanted: dict[str, Any], receiver: Receiver, server: Server
) -> None:
    schedule = create(client, wanted, name="once", webhook=receiver.url)
    assert len(schedule["next_fires"]) == 5
    moments = [datetime.fromisoformat(moment) for moment in schedule["next_fires"]]
    assert schedule["next_fire_at"] == schedule["next_fires"][0]
    assert datetime.now(UTC) < moments[0] < datetime.now(UTC) + timedelta(hours=25)
    secret = schedule["webhook_secret"]
    shown = client.get("/v1/schedules/once").json()
    assert shown == {name: value for name, value in schedule.items() if name != "webhook_secret"}
    assert client.get(f"/v1/schedules/{schedule['id']}").json() == shown
    assert secret not in client.get("/v1/schedules").text
    assert secret not in server.log.read_text()
    assert (shown["dataset"], shown["overlap"], shown["export_format"]) == ("nightly", "skip", "parquet")


@pytest.mark.slow
def test_a_fire_fetches_only_new_rows_runs_exports_and_tells_the_webhook(
    client: httpx.Client, wanted: dict[str, Any], receiver: Receiver, server: Server, imports: Path
) -> None:
    schedule = create(client, wanted, name="full", webhook=receiver.url, export="plain-jsonl")
    add_rows(imports, 20, 24)
    fired = client.post("/v1/schedules/full/fire")
    assert fired.status_code == 202
    job = server.wait(fired.headers["location"])
    assert job["state"] == "succeeded", job
    assert (job["kind"], job["schedule_id"]) == ("schedule", schedule["id"])
    assert (job["result"]["version"], job["result"]["new_rows"]) == (2, 4)
    report = client.get(job["links"]["run"] + "/report").json()["report"]
    assert report["ingested"] == 24
    assert len(client.get(job["links"]["subset"]).text.splitlines()) == report["kept"]

    (fire,) = client.get("/v1/schedules/full/fires").json()["items"]
    assert (fire["outcome"], fire["job_id"], fire["state"]) == ("started", job["id"], "succeeded")
    log = until(lambda: client.get("/v1/schedules/full/deliveries").json()["items"], server.log.read_text)
    assert [(entry["job_id"], entry["attempt"], entry["status"]) for entry in log] == [(job["id"], 1, 204)]
    ((headers, body),) = receiver.seen
    message = Webhook(schedule["webhook_secret"]).verify(body, headers)
    assert message["result"]["export_id"] == job["result"]["export_id"]


def test_a_fire_that_finds_nothing_new_repeats_nothing(
    client: httpx.Client, wanted: dict[str, Any], server: Server
) -> None:
    create(client, wanted, name="again")
    first, second = (
        server.wait(client.post("/v1/schedules/again/fire").headers["location"])["result"] for _ in range(2)
    )
    assert second["new_rows"] == 0
    assert (first["run_id"], first["export_id"]) == (second["run_id"], second["export_id"])


def test_a_schedule_is_paused_changed_and_resumed(client: httpx.Client, wanted: dict[str, Any]) -> None:
    create(client, wanted, name="paused")
    paused = client.patch("/v1/schedules/paused", json={"paused": True}).json()
    assert (paused["paused"], paused["next_fire_at"], paused["next_fires"]) == (True, None, [])
    changed = {"paused": False, "cron": "15 4 * * SUN", "timezone": "UTC", "overlap": "queue"}
    resumed = client.patch("/v1/schedules/paused", json=changed).json()
    moments = [datetime.fromisoformat(moment) for moment in resumed["next_fires"]]
    assert {(m.strftime("%a %H:%M")) for m in moments} == {"Sun 04:15"}
    assert resumed["overlap"] == "queue"


def test_a_schedule_is_deleted_with_its_history_and_its_jobs_stay(
    client: httpx.Client, wanted: dict[str, Any], server: Server
) -> None:
    create(client, wanted, name="short")
    job = server.wait(client.post("/v1/schedules/short/fire").headers["location"])
    deleted = client.delete("/v1/schedules/short").json()
    assert deleted["deleted"] is True
    assert {"kind": "fire", "count": 1} in deleted["dependents"]
    problem(client.get("/v1/schedules/short"), 404)
    assert client.get(job["links"]["self"]).json()["state"] == "succeeded"


def test_schedules_are_listed_in_pages_the_newest_first(client: httpx.Client, wanted: dict[str, Any]) -> None:
    names = [create(client, wanted)["name"] for _ in range(3)]
    assert len(set(names)) == 3
    assert all(name.startswith("nightly") for name in names)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        asked = {"limit": "2"} | ({} if cursor is None else {"cursor": cursor})
        shown = client.get("/v1/schedules", params=asked).json()
        seen += [schedule["name"] for schedule in shown["items"]]
        if (cursor := shown["next"]) is None:
            break
    assert seen[:3] == names[::-1]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize(
    ("wrong", "status", "field"),
    [
        ({"cron": "0 2 * *"}, 422, "cron"),
        ({"cron": "0 0 30 2 *"}, 422, "cron"),
        ({"timezone": "Mars/Olympus"}, 422, "timezone"),
        ({"webhook": "http://169.254.169.254/latest/meta-data"}, 422, "webhook"),
        ({"webhook": "http://[::ffff:10.0.0.1]/"}, 422, "webhook"),
        ({"webhook": "http://localhost:1/"}, 422, "webhook"),
        ({"webhook": "https://user:secret@93.184.215.14/"}, 422, "webhook"),
        ({"webhook": "http://nowhere.invalid/"}, 422, "webhook"),
        ({"webhook": "ftp://example.com/"}, 422, "webhook"),
        ({"source": {"kind": "path", "path": "/etc"}}, 403, "source.path"),
        ({"source": {"kind": "url", "url": "s3://others/x"}}, 403, "source.url"),
        ({"source": {"kind": "upload", "upload_id": "upl_1"}}, 422, "source"),
        ({"dataset": "unknown"}, 404, None),
        ({"keep_versions": 0}, 422, "keep_versions"),
        ({"run": {"method": "qtuning", "keep": 2.5}}, 422, "run.keep"),
        (
            {"run": {"method": "qtuning", "keep": 0.5, "measuring": {"model": "/etc"}}},
            403,
            "run.measuring.model",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_field_at_fault(
    client: httpx.Client, wanted: dict[str, Any], wrong: dict[str, Any], status: int, field: str | None
) -> None:
    about = problem(client.post("/v1/schedules", json=wanted | wrong), status)
    assert about["field"] == field


def test_retention_is_set_on_the_dataset(client: httpx.Client, wanted: dict[str, Any]) -> None:
    create(client, wanted, keep_versions=30, keep_runs=20)
    dataset = client.get("/v1/datasets/nightly").json()
    assert (dataset["keep_versions"], dataset["keep_runs"]) == (30, 20)


def test_reading_needs_read_changing_needs_write_and_other_projects_see_nothing(
    server: Server, client: httpx.Client, wanted: dict[str, Any]
) -> None:
    schedule = create(client, wanted, name="guarded")["id"]
    calls: list[tuple[str, str, Any]] = [
        ("GET", f"/v1/schedules/{schedule}", None),
        ("GET", f"/v1/schedules/{schedule}/fires", None),
        ("GET", f"/v1/schedules/{schedule}/deliveries", None),
        ("PATCH", f"/v1/schedules/{schedule}", {"paused": True}),
        ("POST", f"/v1/schedules/{schedule}/fire", None),
        ("DELETE", f"/v1/schedules/{schedule}", None),
    ]
    reader = server.as_token(server.new_token("read"))
    stranger = server.as_token(server.new_token("read", "write", project="theirs"))
    with reader, stranger:
        for method, path, body in calls:
            allowed = reader.request(method, path, json=body).status_code
            assert allowed == (200 if method == "GET" else 403), (method, path)
            assert stranger.request(method, path, json=body).status_code == 404, (method, path)
        assert reader.post("/v1/schedules", json=wanted).status_code == 403
        assert stranger.post("/v1/schedules", json=wanted).status_code == 404
        assert stranger.get("/v1/schedules").json()["items"] == []
    assert client.get(f"/v1/schedules/{schedule}").json()["paused"] is False
