"""A real HTTP server that answers as a test tells it to, and breaks off where it is told to."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from tests.waiting import PATIENCE

Behaviour = Callable[["Handler"], None]


@dataclass(frozen=True)
class Seen:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Unruly:
    url: str
    behaviours: list[Behaviour] = field(default_factory=list)
    """One for each request to come; the last one stays."""
    seen: list[Seen] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Of both: several requests may come at once."""
    over: threading.Event = field(default_factory=threading.Event)
    """Set at the end of the test: what keeps clients waiting ends then."""

    def will(self, *behaviours: Behaviour) -> None:
        self.behaviours[:] = behaviours
        self.seen.clear()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    unruly: Unruly
    seen: Seen
    """The request to be answered."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(self._chunks())
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.seen = Seen(self.command, self.path, headers, body)
        with self.unruly.lock:
            self.unruly.seen.append(self.seen)
            behaviours = self.unruly.behaviours
            behave = behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]
        behave(self)

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    do_GET = do_POST = do_PATCH = do_DELETE = _handle  # noqa: N815

    def begin(self, status: int, headers: dict[str, Any], length: int | None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        if length is None:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def reset(self) -> None:
        """Break the connection, as a machine does that goes down."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, *message: Any) -> None:
        pass


def answers(document: Any, status: int = 200, **headers: Any) -> Behaviour:
    """JSON; headers with underscores for hyphens."""
    body = json.dumps(document).encode()
    named = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}

    def behave(handler: Handler) -> None:
        handler.begin(status, named, len(body))
        handler.wfile.write(body)

    return behave


def problem(kind: str, status: int, detail: str = "it went wrong", **more: Any) -> Behaviour:
    headers = {name: more.pop(name) for name in list(more) if name[0].isupper()}
    about = {"type": f"/problems/{kind}", "title": "Trouble", "status": status, "detail": detail, **more}
    return answers(about, status, Content_Type="application/problem+json", **headers)


def sends(body: bytes, status: int = 200, *, length: int | None = None, **headers: Any) -> Behaviour:
    """Bytes; with a `length` that is more than there are, it breaks off after them."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def behave(handler: Handler) -> None:
        handler.begin(status, named, len(body) if length is None else length)
        handler.wfile.write(body)
        handler.wfile.flush()
        if length is not None:
            handler.close_connection = True

    return behave


def streams(body: bytes, **headers: Any) -> Behaviour:
    """Bytes of an answer that says no length and ends with the connection."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def behave(handler: Handler) -> None:
        handler.begin(200, named, None)
        handler.wfile.write(body)

    return behave


def breaks(handler: Handler) -> None:
    """No answer at all."""
    handler.reset()


def is_silent(handler: Handler) -> None:
    """No answer, and no end of the connection either."""
    handler.unruly.over.wait()
    handler.reset()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *about: Any) -> None:
        """Clients that go away are what the tests are about."""


def forwards(url: str, *, loses_answer: bool = False) -> Behaviour:
    """Passes the request on to a service, and its answer back or not."""

    def behave(handler: Handler) -> None:
        seen = handler.seen
        headers = {k: v for k, v in seen.headers.items() if k not in ("host", "connection")}
        with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
            answer = client.request(seen.method, f"{url}{seen.path}", headers=headers, content=seen.body)
        if loses_answer:
            handler.reset()
            return
        handler.begin(
            answer.status_code,
            {"Content-Type": answer.headers["Content-Type"]},
            len(answer.content),
        )
        handler.wfile.write(answer.content)

    return behave


@contextmanager
def unruly_server() -> Iterator[Unruly]:
    handler = type("Bound", (Handler,), {})
    with _Server(("127.0.0.1", 0), handler) as server:
        handler.unruly = Unruly(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield handler.unruly
        finally:
            handler.unruly.over.set()
            server.shutdown()
            thread.join()
