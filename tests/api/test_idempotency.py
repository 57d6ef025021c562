"""Idempotency-Key: the work is done once, however often it is asked for."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.served import Server


def new_key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid.uuid4())}


def tokens_named(server: Server, name: str) -> int:
    listed = server.client.get("/v1/tokens", params={"limit": 200}).json()["items"]
    return sum(token["name"] == name for token in listed)


def test_a_repetition_gets_the_first_answer_and_does_nothing(server: Server) -> None:
    key, body = new_key(), {"name": "once"}
    first = server.client.post("/v1/tokens", json=body, headers=key)
    again = server.client.post("/v1/tokens", json=body, headers=key)
    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Cache-Control"] == "no-store"
    assert again.headers["X-Request-ID"] != first.headers["X-Request-ID"]
    assert tokens_named(server, "once") == 1


def test_a_repetition_gets_the_location_too(server: Server) -> None:
    key, body = new_key(), {"name": "located"}
    first = server.client.post("/v1/projects", json=body, headers=key)
    again = server.client.post("/v1/projects", json=body, headers=key)
    assert again.status_code == 201
    assert again.headers["Location"] == first.headers["Location"]


def test_what_is_kept_cannot_be_read_in_the_database(server: Server) -> None:
    secret = server.client.post("/v1/tokens", json={"name": "kept"}, headers=new_key()).json()["secret"]
    files = server.home.glob("catalog.sqlite*")
    assert not any(secret.encode() in file.read_bytes() for file in files)


def test_errors_of_the_client_are_repeated(server: Server) -> None:
    key, body = new_key(), {"name": "default"}
    first = server.client.post("/v1/projects", json=body, headers=key)
    again = server.client.post("/v1/projects", json=body, headers=key)
    assert first.status_code == again.status_code == 409
    assert first.content == again.content
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/tokens", {"name": "other"}), ("/v1/projects", {"name": "same"})]
)
def test_a_key_cannot_serve_for_another_request(server: Server, path: str, body: dict[str, str]) -> None:
    key = new_key()
    assert server.client.post("/v1/tokens", json={"name": "same"}, headers=key).status_code == 201
    answer = server.client.post(path, json=body, headers=key)
    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/idempotency-key-reused"
    assert answer.json()["field"] == "Idempotency-Key"


def test_the_same_key_of_another_token_is_another_key(server: Server) -> None:
    key = new_key()
    server.client.post("/v1/tokens", json={"name": "mine"}, headers=key)
    with server.as_token(server.new_token("admin")) as other:
        answer = other.post("/v1/tokens", json={"name": "theirs"}, headers=key)
    assert answer.status_code == 201
    assert answer.json()["name"] == "theirs"


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "ü"])
def test_a_key_that_is_none_is_refused(server: Server, key: str) -> None:
    answer = server.client.post(
        "/v1/tokens", json={"name": "no"}, headers={b"Idempotency-Key": key.encode("utf-8")}
    )
    assert answer.status_code == 422
    assert answer.json()["field"] == "Idempotency-Key"


def test_of_many_at_once_one_is_done(server: Server) -> None:
    key, gate = new_key(), threading.Barrier(8)

    def ask(_: int) -> httpx.Response:
        with server.as_token(server.token) as client:
            gate.wait()
            return client.post("/v1/tokens", json={"name": "crowd"}, headers=key)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert {a.json()["type"] for a in answers if a.status_code == 409} <= {"/problems/request-in-progress"}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert tokens_named(server, "crowd") == 1


def test_a_key_is_free_again_after_a_day(server: Server) -> None:
    key = new_key()
    server.client.post("/v1/tokens", json={"name": "daily"}, headers=key)
    server.change(
        "UPDATE replies SET created_at = datetime('now', '-25 hours') || '.000000' WHERE key = ?",
        *key.values(),
    )
    server.client.post("/v1/tokens", json={"name": "daily"}, headers=key)
    assert tokens_named(server, "daily") == 2


def test_a_key_left_by_a_process_that_died_is_free_again_after_a_minute(server: Server) -> None:
    key = new_key()
    server.client.post("/v1/tokens", json={"name": "died"}, headers=key)
    for age, status in (("-2 seconds", 409), ("-61 seconds", 201)):
        server.change(
            "UPDATE replies SET status = NULL, created_at = datetime('now', ?) || '.000000' WHERE key = ?",
            age,
            *key.values(),
        )
        answer = server.client.post("/v1/tokens", json={"name": "died"}, headers=key)
        assert answer.status_code == status


def test_a_form_is_the_same_with_another_boundary(server: Server) -> None:
    key = new_key()

    def send(boundary: str, text: bytes = b'{"instruction": "Hi", "output": "Hello."}\n') -> httpx.Response:
        return server.client.post(
            "/v1/datasets",
            data={"name": "bounded"},
            files={"file": ("rows.jsonl", text)},
            headers={**key, "Content-Type": f"multipart/form-data; boundary={boundary}"},
        )

    first = send("a" * 20)
    assert first.status_code == 202, first.text
    again = send("b" * 33)
    assert again.content == first.content
    assert again.headers["Location"] == first.headers["Location"]
    assert send("c" * 20, b"{}\n").status_code == 422


def test_refusals_that_may_end_are_not_kept(server: Server) -> None:
    token = server.new_token("read", "write", project="refused")
    server.client.patch("/v1/projects/refused", json={"quota_bytes": 1})
    key, rows = new_key(), [{"instruction": "Hi", "output": "Hello."}]
    with server.as_token(token) as client:
        body = {"name": "later", "rows": rows}
        assert client.post("/v1/datasets", json=body, headers=key).status_code == 429
        server.client.patch("/v1/projects/refused", json={"quota_bytes": None})
        assert client.post("/v1/datasets", json=body, headers=key).status_code == 202
