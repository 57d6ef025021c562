"""Downloads and progress streams that break off, are cut anywhere, or bring the wrong thing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapruner.client import Client
from datapruner.client._events import Event, EventReader
from datapruner.errors import ConflictError, InputError, NotFoundError, ServiceError, StorageError, UsageError
from datapruner.http.retries import Retries
from tests.datapruner.client.conftest import Through
from tests.datapruner.client.test_session import JOB
from tests.datapruner.client.unruly import (
    Behaviour,
    Handler,
    Unruly,
    answers,
    breaks,
    problem,
    sends,
    streams,
)

FILE = bytes(range(256)) * 4000  # about a megabyte
SHA256 = hashlib.sha256(FILE).hexdigest()
EXPORT = {
    "id": "exp_1",
    "run_id": "run_1",
    "job_id": "job_1",
    "state": "succeeded",
    "format": "parquet",
    "max_length": None,
    "too_long": None,
    "rows": 3,
    "counts": None,
    "bytes": len(FILE),
    "sha256": SHA256,
    "created_at": "2026-01-02T03:04:05Z",
    "published_at": "2026-01-02T03:04:06Z",
    "download": "/v1/exports/exp_1/file",
    "card": "/v1/exports/exp_1/card",
}
DIGEST = f"sha-256=:{base64.b64encode(bytes.fromhex(SHA256)).decode()}:"
ABOUT = {"ETag": f'"{SHA256}"', "Repr_Digest": DIGEST}


def serves(file: bytes = FILE, stop_after: int | None = None) -> Behaviour:
    """The file as the service sends it, honouring Range, and broken off `stop_after` bytes further on."""

    def behave(handler: Handler) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and handler.headers.get("If-Range") == ABOUT["ETag"] else 0
        body = file[start:]
        about: dict[str, Any] = dict(ABOUT)
        if start:
            about["Content_Range"] = f"bytes {start}-{len(file) - 1}/{len(file)}"
        cut = body if stop_after is None else body[:stop_after]
        sends(cut, 206 if start else 200, length=len(body), **about)(handler)

    return behave


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "subset.parquet"


def download(out: Path) -> Any:
    return lambda client: client.exports.download("exp_1", out)


def test_a_download_that_breaks_off_goes_on_where_it_was(unruly: Unruly, through: Through, out: Path) -> None:
    unruly.will(answers(EXPORT), serves(stop_after=300_000), breaks, serves(stop_after=70_001), serves())
    assert through(unruly.url, download(out)) == out
    assert out.read_bytes() == FILE
    ranges = [seen.headers.get("range") for seen in unruly.seen[1:]]
    assert ranges == [None, "bytes=300000-", "bytes=300000-", "bytes=370001-"]
    assert all(seen.headers["accept-encoding"] == "identity" for seen in unruly.seen[1:])
    assert list(out.parent.iterdir()) == [out]


def test_a_later_call_goes_on_with_what_an_interrupted_one_left(
    unruly: Unruly, through: Through, out: Path
) -> None:
    unruly.will(answers(EXPORT), serves(stop_after=300_000))
    with pytest.raises(ServiceError, match="downloading export exp_1: the connection"):
        through(unruly.url, download(out), retries=Retries(count=0))
    assert not out.exists()
    unruly.will(answers(EXPORT), serves())
    through(unruly.url, download(out))
    assert out.read_bytes() == FILE
    assert [seen.headers.get("range") for seen in unruly.seen] == [None, "bytes=300000-"]
    assert list(out.parent.iterdir()) == [out]


def test_what_was_left_of_another_file_is_not_gone_on_with(unruly: Unruly, out: Path) -> None:
    unruly.will(answers(EXPORT), serves(stop_after=300_000))
    with Client(unruly.url, "secret", retries=0) as client:
        with pytest.raises(ServiceError):
            client.exports.download("exp_1", out)
        other = b"another file"
        sha256 = hashlib.sha256(other).hexdigest()
        unruly.will(answers(EXPORT | {"bytes": len(other), "sha256": sha256}), sends(other))
        client.exports.download("exp_1", out)
    assert out.read_bytes() == other
    assert "range" not in unruly.seen[1].headers


def test_a_server_without_ranges_sends_it_all_again(unruly: Unruly, through: Through, out: Path) -> None:
    unruly.will(answers(EXPORT), serves(stop_after=300_000), sends(FILE, 200, **ABOUT))
    through(unruly.url, download(out))
    assert out.read_bytes() == FILE
    assert unruly.seen[2].headers["range"] == "bytes=300000-"


@pytest.mark.parametrize(
    "wrong",
    [FILE[:-1] + b"x", FILE + b"x", b"x" + FILE[1:]],
    ids=["end", "longer", "beginning"],
)
def test_a_damaged_file_is_refused_and_leaves_nothing(
    unruly: Unruly, through: Through, out: Path, wrong: bytes
) -> None:
    out.write_bytes(b"what was there")
    unruly.will(answers(EXPORT), sends(wrong, **ABOUT))
    with pytest.raises(StorageError, match=r"came damaged.*download it again"):
        through(unruly.url, download(out))
    assert out.read_bytes() == b"what was there"
    assert list(out.parent.iterdir()) == [out]
    unruly.will(answers(EXPORT), sends(wrong, **ABOUT))
    with pytest.raises(StorageError):
        through(unruly.url, lambda client: client.exports.read("exp_1"))


@pytest.mark.parametrize(
    "about",
    [{"Repr_Digest": "sha-256=:" + base64.b64encode(bytes(32)).decode() + ":"}, {"ETag": '"another"'}],
)
def test_a_file_that_is_not_the_export_s_is_refused_by_its_header(
    unruly: Unruly, out: Path, about: dict[str, str]
) -> None:
    unruly.will(answers(EXPORT), sends(FILE, **about))
    with Client(unruly.url, "secret") as client, pytest.raises(StorageError, match="another file"):
        client.exports.download("exp_1", out)
    assert not out.exists()


def test_ranges_that_were_not_asked_for_are_refused(unruly: Unruly, out: Path) -> None:
    shifted = sends(FILE[300_001:], 206, Content_Range=f"bytes 300001-{len(FILE) - 1}/{len(FILE)}", **ABOUT)
    unruly.will(answers(EXPORT), serves(stop_after=300_000), shifted)
    with Client(unruly.url, "secret") as client, pytest.raises(ServiceError, match="from 300000 on"):
        client.exports.download("exp_1", out)


def test_reading_gives_the_bytes_and_tells_how_far_it_is(unruly: Unruly, through: Through) -> None:
    unruly.will(answers(EXPORT), serves(stop_after=10), serves())
    told: list[tuple[int, int]] = []
    read = through(
        unruly.url, lambda client: client.exports.read("exp_1", progress=lambda *at: told.append(at))
    )
    assert read == FILE
    assert told[0] == (10, len(FILE))
    assert told[-1] == (len(FILE), len(FILE))
    assert told == sorted(told)


def test_an_export_that_is_not_written_yet_cannot_be_fetched(
    unruly: Unruly, through: Through, out: Path
) -> None:
    unruly.will(answers(EXPORT | {"state": "running", "bytes": None, "sha256": None}))
    with pytest.raises(ConflictError, match=r"its job is running \(wait for job job_1\)"):
        through(unruly.url, download(out))


def test_a_place_that_cannot_be_written_is_named(unruly: Unruly, through: Through, tmp_path: Path) -> None:
    unruly.will(answers(EXPORT), serves())
    with pytest.raises(UsageError, match=r"cannot write .*nowhere/x.parquet: No such file"):
        through(unruly.url, download(tmp_path / "nowhere" / "x.parquet"))


# Jobs


def event(sequence: int, **changes: Any) -> bytes:
    return f"event: job\nid: {sequence}\ndata: {json.dumps(JOB | changes)}\n\n".encode()


def told(*events: bytes) -> Behaviour:
    return streams(b": ping\n\n" + b"".join(events), Content_Type="text/event-stream; charset=utf-8")


RUNNING = {"state": "running", "progress": {"stage": "measuring", "done": 5}}
DONE = {"state": "succeeded", "result": {"run_id": "run_1"}}


def test_a_stream_that_breaks_goes_on_after_the_last_event(unruly: Unruly, through: Through) -> None:
    broken = sends(
        event(0) + event(3, **RUNNING) + b"event: job\nid: 4\nda",
        length=10**6,
        Content_Type="text/event-stream",
    )
    unruly.will(broken, breaks, told(), told(event(7, **DONE)))
    seen = through(unruly.url, lambda client: client.jobs.watch("job_1"))
    assert [job.state for job in seen] == ["queued", "running", "succeeded"]
    assert [request.headers.get("last-event-id") for request in unruly.seen] == [None, "3", "3", "3"]


def test_waiting_tells_each_change_and_gives_the_job(unruly: Unruly, through: Through) -> None:
    unruly.will(told(event(0), event(1, **RUNNING), event(2, **DONE)))
    stages: list[str] = []
    job = through(
        unruly.url, lambda client: client.jobs.wait("job_1", progress=lambda job: stages.append(job.state))
    )
    assert job.result.run_id == "run_1"
    assert stages == ["queued", "running", "succeeded"]


def test_a_job_that_failed_raises_what_it_failed_with(unruly: Unruly, through: Through) -> None:
    why = {"type": "/problems/invalid-input", "title": "T", "status": 422, "detail": "row 3 is no row"}
    unruly.will(told(event(0), event(1, state="failed", error=why | {"remedy": "fix it"})))
    with pytest.raises(InputError, match=r"row 3 is no row \(fix it\)"):
        through(unruly.url, lambda client: client.jobs.wait("job_1"))
    unruly.will(told(event(1, state="cancelled")))
    with pytest.raises(ConflictError, match="job job_1 was cancelled"):
        through(unruly.url, lambda client: client.jobs.wait("job_1"))


def test_a_stream_that_never_says_anything_is_given_up(unruly: Unruly, through: Through) -> None:
    unruly.will(told())
    with pytest.raises(ServiceError, match="watching job job_1"):
        through(unruly.url, lambda client: client.jobs.wait("job_1"))
    assert len(unruly.seen) == 4
    unruly.will(problem("not-found", 404, "no job 'job_1'"))
    with pytest.raises(NotFoundError):
        through(unruly.url, lambda client: client.jobs.wait("job_1"))
    unruly.will(answers(JOB))
    with pytest.raises(ServiceError, match="unexpected body"):
        through(unruly.url, lambda client: client.jobs.wait("job_1"))


def test_whoever_stops_watching_gives_the_connection_back(unruly: Unruly) -> None:
    unruly.will(told(event(0), event(1, **RUNNING), event(2, **DONE)))
    with Client(unruly.url, "secret") as client:
        for job in client.jobs.watch("job_1"):
            assert job.state == "queued"
            break
        pool = client._session.wire.http._transport._pool  # type: ignore[union-attr]
        assert all(connection.is_idle() or connection.is_closed() for connection in pool.connections)


STREAM = (
    "\ufeff: a comment\r\nevent: job\r\nid: 1\r\ndata: one\r\ndata:two\r\n\r\n"
    "data: без имени\n\nevent: nothing\n\nid\ndata\n\nid: 9\0\ndata: x\r\rretry: 5\n"
    "unknown: y\ndata: unfinished"
).encode()
EVENTS = [
    Event("job", "one\ntwo", "1"),
    Event("message", "без имени", "1"),
    Event("message", "", ""),
    Event("message", "x", ""),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_events_are_the_same_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    reader = EventReader()
    edges = [0, *sorted(cuts), len(STREAM)]
    found = [each for begin, end in pairwise(edges) for each in reader.feed(STREAM[begin:end])]
    assert found == EVENTS
