"""Errors of every kind, as a client sees them."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from api.app import create_app
from datapruner.catalog import migrations
from datapruner.settings import Settings
from tests.served import Server
from tests.waiting import PATIENCE, until

JSON = {"Content-Type": "application/json"}


def test_a_wrong_field_is_named_with_a_remedy_and_without_what_was_sent(server: Server) -> None:
    body = {"name": "x", "scopes": ["SECRET-VALUE"], "max_jobs": "SECRET-VALUE"}
    answer = server.client.post("/v1/tokens", json=body)
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "/problems/invalid-request"
    assert problem["field"] == "scopes.0"
    assert problem["remedy"]
    assert [error["field"] for error in problem["errors"]] == ["scopes.0", "max_jobs"]
    assert "SECRET" not in answer.text


def test_many_errors_are_cut_short(server: Server) -> None:
    answer = server.client.post("/v1/tokens", json={"name": "x", **{f"a{n}" * 200: 1 for n in range(500)}})
    assert answer.status_code == 422
    assert len(answer.content) < 10_000


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("GET", "/nothing", 404), ("PUT", "/v1/tokens", 405)],
)
def test_paths_and_methods_that_do_not_exist_are_problems_too(
    server: Server, method: str, path: str, status: int
) -> None:
    answer = server.client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
    if status == 405:
        assert "POST" in answer.headers["Allow"]


@pytest.mark.parametrize(
    "body",
    [b"{", b"\xff\xfe", b"[" * 200_000, b'{"name":' * 200_000, b"[" * 900 + b"]" * 900, b"", b"null", b"NaN"],
    ids=["cut", "not UTF-8", "deep list", "deep object", "deep but whole", "empty", "null", "nan"],
)
def test_what_is_no_document_is_refused(server: Server, body: bytes) -> None:
    answer = server.client.post("/v1/tokens", content=body, headers=JSON)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["remedy"]
    assert answer.json()["field"] is None


def test_a_form_where_json_belongs_gets_told(server: Server) -> None:
    answer = server.client.post("/v1/tokens", files={"name": "x"})
    assert answer.status_code == 422
    assert "application/json" in answer.json()["remedy"]


def test_a_body_that_says_that_it_is_too_large_is_refused_before_it_comes(server: Server) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=PATIENCE)
    connection.putrequest("POST", "/v1/tokens")
    connection.putheader("Content-Length", str(1 << 40))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read())["type"] == "/problems/too-large"
    connection.close()


def test_a_body_that_does_not_say_so_is_counted(server: Server) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(9):
            yield b" " * (1 << 20)

    answer = server.client.post("/v1/tokens", content=body(), headers=JSON)
    assert answer.status_code == 413
    assert answer.json()["type"] == "/problems/too-large"


def test_a_request_id_is_taken_over_and_a_bad_one_replaced(server: Server) -> None:
    kept = server.client.get("/v1/health", headers={"X-Request-ID": "build-7.2"})
    assert kept.headers["X-Request-ID"] == "build-7.2"
    for bad in ("a b", "x" * 101, "a;b", ""):
        answer = server.client.get("/v1/health", headers={"X-Request-ID": bad})
        assert answer.headers["X-Request-ID"] not in (bad, "")


def test_the_log_has_the_request_without_what_was_sent(server: Server) -> None:
    server.client.get("/v1/methods/SECRET-NAME?x=SECRET", headers={"X-Request-ID": "find-me-1"})

    def found() -> list[str]:
        return [line for line in server.log.read_text().splitlines(keepends=True) if "find-me-1" in line]

    # The line is written after the answer was sent.
    [line] = until(lambda: [line for line in found() if line.endswith("\n")], server.log.read_text)
    assert "/v1/methods/{method}" in line
    assert "status=404" in line
    assert "ms=" in line
    assert "SECRET" not in line


def test_an_error_of_ours_tells_its_request_id_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(home=tmp_path / "home", sql_warm=0)
    migrations.upgrade(settings.database)
    app = create_app(settings)

    @app.get("/broken")
    def broken() -> None:
        raise ZeroDivisionError("SECRET of ours")

    async def ask() -> httpx.Response:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app, raise_app_exceptions=True)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.get("/broken", headers={"X-Request-ID": "broken-1"})

    with caplog.at_level(logging.ERROR):
        answer = asyncio.run(ask())
    assert answer.status_code == 500
    assert json.loads(answer.content) == {
        "type": "/problems/internal",
        "title": "The service failed",
        "status": 500,
        "detail": "an unexpected error; the logs have it",
        "field": None,
        "remedy": None,
        "request_id": "broken-1",
    }


def test_values_that_no_database_holds_are_the_requests_fault(server: Server) -> None:
    huge = server.client.post("/v1/projects", json={"name": "huge", "quota_rows": 1 << 70})
    assert huge.status_code == 422
    assert huge.json()["remedy"]
    assert server.client.get("/v1/projects/%00").status_code == 404
    assert server.client.get(f"/v1/projects/{'x' * 10_000}").status_code == 404
