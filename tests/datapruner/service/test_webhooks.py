"""Webhooks against a real HTTP server on this machine, through the real queue."""

from __future__ import annotations

import base64
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from standardwebhooks import Webhook, WebhookVerificationError

from datapruner.catalog.database import Database
from datapruner.catalog.models import Base, Dataset, Delivery, Job, Project, Schedule, new_id, utcnow
from datapruner.errors import UsageError, WorkerError
from datapruner.measuring.workers.local import IdleWorkers
from datapruner.service import queue, webhooks
from datapruner.service.context import Context
from datapruner.service.problems import problem
from datapruner.service.storage import open_storage
from datapruner.settings import Settings
from tests.datapruner.service.queues import LEASE
from tests.waiting import PATIENCE

SECRET = webhooks.new_secret()


@dataclass
class Receiver:
    """A server that keeps what it is sent and answers with the next of `script`, at the end with 200."""

    url: str = ""
    script: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    seen: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    may_hang_up: threading.Event = field(default_factory=threading.Event)
    """Connections stay open until this is set, which it is unless a test clears it."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    receiver.may_hang_up.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.seen.append((self.path, dict(self.headers), body))
            status, headers, answer = receiver.script.pop(0) if receiver.script else (200, {}, b"")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)
            receiver.may_hang_up.wait(PATIENCE)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *args: Any) -> None:
            """Not to standard error."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        receiver.url = f"http://127.0.0.1:{server.server_port}/hook?of=night"
        yield receiver
        server.shutdown()
        thread.join()


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    settings = Settings(home=tmp_path, webhook_hosts=["127.0.0.1"])
    db = Database(settings.database)
    Base.metadata.create_all(db.engine)
    idle = IdleWorkers()
    yield Context(settings, db, open_storage(settings.files, tmp_path / "cache"), ("cpu",), idle)
    idle.close()
    db.close()


@pytest.fixture
def schedule_id(context: Context, receiver: Receiver) -> str:
    schedule = Schedule(
        id=new_id("sch"),
        project_id="prj_1",
        dataset_id="ds_1",
        name="nightly",
        cron="0 2 * * *",
        timezone="UTC",
        run={},
        webhook_url=receiver.url,
        webhook_secret=SECRET,
    )
    with context.db.write() as session:
        session.add(Project(id="prj_1", name="ours"))
        session.flush()
        session.add(Dataset(id="ds_1", project_id="prj_1", name="alpaca"))
        session.flush()
        session.add(schedule)
    return schedule.id


def claim(context: Context) -> queue.Lease:
    with context.db.write() as session:
        session.execute(update(Job).where(Job.state == "queued").values(run_after=utcnow()))
    lease = queue.claim(context.db, "w", LEASE)
    assert lease is not None
    return lease


def end_a_job(context: Context, schedule_id: str | None, *, kind: str = "schedule") -> str:
    """A job of the schedule that succeeds."""
    with context.db.write() as session:
        queue.submit(session, project_id="prj_1", kind=kind, payload={}, schedule_id=schedule_id)
    lease = claim(context)
    queue.finish(context.db, lease, {"run_id": "run_1", "export_id": "exp_1"})
    return lease.job_id


def waiting(context: Context) -> list[Job]:
    with context.db.read() as session:
        return list(session.scalars(select(Job).where(Job.state == "queued")))


def deliveries(context: Context) -> list[tuple[int, int | None, str | None]]:
    with context.db.read() as session:
        found = session.scalars(select(Delivery).order_by(Delivery.id)).all()
    return [(delivery.attempt, delivery.status, delivery.error) for delivery in found]


def set_url(context: Context, url: str) -> None:
    with context.db.write() as session:
        session.execute(update(Schedule).values(webhook_url=url))


# What is announced


def test_the_end_of_a_schedules_job_queues_one_delivery_and_its_own_end_none(
    context: Context, schedule_id: str
) -> None:
    job_id = end_a_job(context, schedule_id)
    (delivery,) = waiting(context)
    assert delivery.kind == "webhook"
    assert delivery.payload == {"webhook": {"schedule_id": schedule_id, "job_id": job_id}}
    lease = claim(context)
    webhooks.deliver(context, lease)
    queue.finish(context.db, lease, {})
    assert waiting(context) == []


def test_failure_for_good_and_cancellation_are_announced_a_retry_is_not(
    context: Context, schedule_id: str, receiver: Receiver
) -> None:
    with context.db.write() as session:
        queue.submit(session, project_id="prj_1", kind="schedule", payload={}, schedule_id=schedule_id)
    error = problem(WorkerError("out of memory"))
    queue.fail(context.db, claim(context), error, retry=True)
    assert [job.kind for job in waiting(context)] == ["schedule"]
    queue.fail(context.db, claim(context), error, retry=False)
    webhooks.deliver(context, claim(context))
    with context.db.write() as session:
        job = queue.submit(session, project_id="prj_1", kind="schedule", payload={}, schedule_id=schedule_id)
        queue.request_cancel(session, job)
    webhooks.deliver(context, claim(context))
    messages = [json.loads(body) for _, _, body in receiver.seen]
    assert [message["event"] for message in messages] == ["job.failed", "job.cancelled"]
    assert messages[0]["error"]["detail"] == "out of memory"
    assert messages[0]["result"] is None


def test_nothing_is_announced_without_a_schedule_or_without_a_webhook(
    context: Context, schedule_id: str
) -> None:
    end_a_job(context, None, kind="run")
    with context.db.write() as session:
        session.execute(update(Schedule).values(webhook_url=None, webhook_secret=None))
    end_a_job(context, schedule_id)
    assert waiting(context) == []


# What is delivered


def test_a_delivery_says_what_ended(context: Context, schedule_id: str, receiver: Receiver) -> None:
    job_id = end_a_job(context, schedule_id)
    webhooks.deliver(context, claim(context))
    ((path, headers, body),) = receiver.seen
    assert path == "/hook?of=night"
    assert headers["Content-Type"] == "application/json"
    assert headers["Host"] == receiver.url.split("/")[2]
    message = json.loads(body)
    assert message["event"] == "job.succeeded"
    assert message["schedule"] == {
        "id": schedule_id,
        "name": "nightly",
        "dataset_id": "ds_1",
        "dataset": "alpaca",
    }
    assert (message["job"]["id"], message["job"]["state"]) == (job_id, "succeeded")
    assert message["job"]["finished_at"].endswith("+00:00")
    assert message["result"] == {"run_id": "run_1", "export_id": "exp_1"}
    assert SECRET not in body.decode()
    assert deliveries(context) == [(1, 200, None)]


def test_a_verifier_of_standard_webhooks_takes_a_delivery_and_refuses_a_changed_or_repeated_one(
    context: Context, schedule_id: str, receiver: Receiver
) -> None:
    """Repeated as another delivery, at another time, or to the owner of another secret."""
    end_a_job(context, schedule_id)
    lease = claim(context)
    webhooks.deliver(context, lease)
    ((_, headers, body),) = receiver.seen
    verifier = Webhook(SECRET)
    assert headers["webhook-id"] == lease.job_id
    assert verifier.verify(body, headers) == json.loads(body)
    later = str(int(headers["webhook-timestamp"]) + 1)
    for receiving, content, changes in (
        (verifier, body.replace(b"succeeded", b"failed"), {}),
        (verifier, body, {"webhook-id": "job_2"}),
        (verifier, body, {"webhook-timestamp": later}),
        (Webhook(webhooks.new_secret()), body, {}),
    ):
        with pytest.raises(WebhookVerificationError, match="No matching signature"):
            receiving.verify(content, headers | changes)


def test_a_secret_is_32_bytes_of_its_own_in_base64() -> None:
    first, second = (webhooks.new_secret() for _ in range(2))
    assert first != second
    prefix, _, key = first.partition("_")
    assert (prefix, len(base64.b64decode(key, validate=True))) == ("whsec", 32)


def test_after_a_500_it_is_tried_again_as_the_same_delivery_and_both_are_logged(
    context: Context, schedule_id: str, receiver: Receiver
) -> None:
    receiver.script = [(500, {}, b"oops")]
    end_a_job(context, schedule_id)
    lease = claim(context)
    with pytest.raises(WorkerError, match="500") as caught:
        webhooks.deliver(context, lease)
    queue.fail(context.db, lease, problem(caught.value), retry=True)
    (again,) = waiting(context)
    assert again.run_after > utcnow()
    lease = claim(context)
    webhooks.deliver(context, lease)
    queue.finish(context.db, lease, {})
    assert [(attempt, status) for attempt, status, _ in deliveries(context)] == [(1, 500), (2, 200)]
    first, second = (headers["webhook-id"] for _, headers, _ in receiver.seen)
    assert first == second


def test_a_receiver_that_is_away_gets_six_attempts(context: Context, schedule_id: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        set_url(context, f"http://127.0.0.1:{closed.getsockname()[1]}/")
        end_a_job(context, schedule_id)
        while waiting(context):
            lease = claim(context)
            with pytest.raises(WorkerError, match="cannot be reached") as caught:
                webhooks.deliver(context, lease)
            queue.fail(context.db, lease, problem(caught.value), retry=True)
    assert [attempt for attempt, *_ in deliveries(context)] == [1, 2, 3, 4, 5, 6]
    assert all(status is None and error for _, status, error in deliveries(context))


def test_a_redirect_is_not_followed(context: Context, schedule_id: str, receiver: Receiver) -> None:
    receiver.script = [(307, {"Location": receiver.url.replace("/hook", "/inside")}, b"")]
    end_a_job(context, schedule_id)
    with pytest.raises(WorkerError, match="307"):
        webhooks.deliver(context, claim(context))
    assert [path for path, *_ in receiver.seen] == ["/hook?of=night"]
    assert deliveries(context)[0][1] == 307


def test_an_answer_without_end_is_not_read(context: Context, schedule_id: str, receiver: Receiver) -> None:
    receiver.script = [(200, {"Content-Length": "1000000000000"}, b"x" * 100_000)]
    end_a_job(context, schedule_id)
    receiver.may_hang_up.clear()  # whoever reads on waits, and runs out of time
    webhooks.deliver(context, claim(context))
    receiver.may_hang_up.set()
    assert deliveries(context) == [(1, 200, None)]


def test_a_receiver_that_drips_its_headers_is_given_up_after_the_time_out(
    context: Context, schedule_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n")
                    for number in itertools.count():
                        connection.sendall(b"x-%d: y\r\n" % number)
                        time.sleep(0.05)
                except OSError:
                    return  # given up, as it should be

        thread = threading.Thread(target=drip)
        thread.start()
        set_url(context, f"http://127.0.0.1:{server.getsockname()[1]}/")
        end_a_job(context, schedule_id)
        with pytest.raises(WorkerError, match=r"within 0\.5 s"):
            webhooks.deliver(context, claim(context))
        thread.join()
    assert deliveries(context)[0][1:] == (None, "the webhook's receiver gave no answer within 0.5 s")


def test_an_address_that_has_become_private_is_refused_at_delivery_and_for_good(
    context: Context, schedule_id: str, receiver: Receiver
) -> None:
    set_url(context, receiver.url.replace("127.0.0.1", "localhost"))
    end_a_job(context, schedule_id)
    with pytest.raises(UsageError, match="not a public address"):
        webhooks.deliver(context, claim(context))
    assert receiver.seen == []
    assert deliveries(context)[0][1] is None


def test_the_address_that_was_checked_is_the_one_connected_to(
    context: Context, schedule_id: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that resolves to a public address first and to a private one afterwards gets no connection to
    the latter. The name server is the one thing that has to be played here."""
    port = int(receiver.url.split(":")[2].split("/")[0])
    answers = [[(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.88.98.1", port))]]
    real = socket.getaddrinfo

    def rebinding(host: Any, *args: Any, **options: Any) -> Any:
        if host != "rebinding.example":
            return real(host, *args, **options)
        if answers:
            return answers.pop()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(webhooks, "_SECONDS", 0.5)
    set_url(context, f"http://rebinding.example:{port}/")
    end_a_job(context, schedule_id)
    with pytest.raises(WorkerError):
        webhooks.deliver(context, claim(context))
    assert receiver.seen == []
    assert answers == []


def test_a_delivery_for_a_deleted_schedule_does_nothing(
    context: Context, schedule_id: str, receiver: Receiver
) -> None:
    end_a_job(context, schedule_id)
    with context.db.write() as session:
        session.execute(update(Job).values(schedule_id=None))
        session.delete(session.get_one(Schedule, schedule_id))
    webhooks.deliver(context, claim(context))
    assert receiver.seen == []


# Which URLs are allowed


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "localhost",
        "0.0.0.0",
        "10.0.0.8",
        "172.16.3.4",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "239.1.2.3",
        "240.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[::127.0.0.1]",
        "[fe80::1]",
        "[fc00::1]",
        "[fec0::1]",
        "[ff02::1]",
        "[64:ff9b::10.0.0.1]",
        "[2002:7f00:1::]",
        "[2001:0:a00:1::1]",
        "192.0.0.8",
        "192.88.99.1",
        "0300.0.0.010",
        "[3fff::1]",
        "[::ffff:192.88.99.1]",
    ],
)
def test_an_address_that_is_not_public_is_refused_however_it_is_spelled(host: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        webhooks.check_url(f"http://{host}/hook", Settings(home=tmp_path))
    assert caught.value.field == "webhook"
    assert caught.value.remedy is not None


@pytest.mark.parametrize(
    "url", ["https://93.184.215.14/x", "http://[2606:2800:21f::1]:8080/", "http://8.8.8.8"]
)
def test_a_public_address_is_allowed(url: str, tmp_path: Path) -> None:
    assert webhooks.check_url(url, Settings(home=tmp_path)).addresses[0] in url


def test_a_private_host_is_allowed_by_setting_and_only_that_one(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, webhook_hosts=["localhost", "::1"])
    assert set(webhooks.check_url("http://localhost:9/", settings).addresses) <= {"127.0.0.1", "::1"}
    assert webhooks.check_url("http://[::1]:9/", settings).addresses == ("::1",)
    with pytest.raises(UsageError):
        webhooks.check_url("http://127.0.0.1:9/", settings)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "file:///etc/passwd",
        "http:///x",
        "no url",
        "http://user:pass@8.8.8.8/",
        "http://token@8.8.8.8/",
        "http://8.8.8.8:99999/",
    ],
)
def test_what_is_no_plain_http_url_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        webhooks.check_url(url, Settings(home=tmp_path))
    assert caught.value.field == "webhook"


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64 + ".example", "xn--"])
def test_a_name_that_cannot_be_resolved_is_an_error_of_its_own(host: str, tmp_path: Path) -> None:
    with pytest.raises((WorkerError, UsageError)) as caught:
        webhooks.check_url(f"http://{host}/", Settings(home=tmp_path))
    assert caught.value.field == "webhook"
