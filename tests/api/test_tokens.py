"""Tokens over a real socket: made, used, bound to scopes and projects, and ended."""

from __future__ import annotations

import stat
from datetime import datetime, timedelta

import httpx
import pytest

from tests.served import Server


def test_the_first_start_leaves_an_admin_token_that_only_its_owner_can_read(server: Server) -> None:
    assert stat.S_IMODE((server.home / "admin-token").stat().st_mode) == 0o600
    assert stat.S_IMODE((server.home / "secret").stat().st_mode) == 0o600
    assert (server.home / "admin-token").read_text().startswith("dpr_")
    page = server.client.get("/v1/tokens").json()
    while page["next"] is not None:
        page = server.client.get("/v1/tokens", params={"cursor": page["next"]}).json()
    oldest = page["items"][-1]
    assert oldest["scopes"] == ["read", "write", "sql", "admin"]
    assert oldest["last_used_at"] is not None


def test_a_new_token_is_shown_once_and_kept_as_a_hash_only(server: Server) -> None:
    asked = {"name": "laptop", "scopes": ["sql", "read", "read"], "expires_in_days": 2, "max_jobs": 3}
    made = server.client.post("/v1/tokens", json=asked)
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    token = made.json()
    secret = token.pop("secret")
    assert token["scopes"] == ["read", "sql"]
    listed = server.client.get("/v1/tokens").json()["items"]
    assert [one for one in listed if one["id"] == token["id"]] == [token]
    assert "secret" not in listed[0]
    assert "digest" not in listed[0]
    everything = b"".join(file.read_bytes() for file in server.home.glob("catalog.sqlite*"))
    assert token["id"].encode() in everything
    assert secret.encode() not in everything


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer dpr_wrong", "Bearer dpr_ü", "Basic YTpi", "dpr_x"])
def test_no_token_or_a_bad_one_is_told_how_to_get_a_good_one(server: Server, header: str) -> None:
    with server.as_token(None) as anonymous:
        answer = anonymous.get("/v1/methods", headers={b"Authorization": header.encode("latin-1")})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/unauthorized"
    assert "Authorization" in answer.json()["remedy"]


def test_a_missing_scope_is_named(server: Server) -> None:
    with server.as_token(server.new_token("sql")) as reader:
        answer = reader.get("/v1/methods")
    assert answer.status_code == 403
    assert answer.json()["type"] == "/problems/missing-scope"
    assert "scope read" in answer.json()["remedy"]
    assert 'scope="read"' in answer.headers["WWW-Authenticate"]


def test_a_revoked_token_ends_at_once(server: Server) -> None:
    made = server.client.post("/v1/tokens", json={"name": "lost", "scopes": ["read"]}).json()
    with server.as_token(made["secret"]) as lost:
        assert lost.get("/v1/methods").status_code == 200
        ended = server.client.delete(f"/v1/tokens/{made['id']}").json()
        assert ended["revoked_at"] is not None
        assert server.client.delete(f"/v1/tokens/{made['id']}").json() == ended
        assert lost.get("/v1/methods").status_code == 401
    assert server.client.delete("/v1/tokens/tok_none").status_code == 404


def test_a_token_ends_when_its_time_is_over(server: Server) -> None:
    asked = {"name": "short", "scopes": ["read"], "expires_in_days": 0.5}
    made = server.client.post("/v1/tokens", json=asked).json()
    lasts = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert timedelta(hours=11) < lasts < timedelta(hours=13)
    with server.as_token(made["secret"]) as client:
        for over, status in (("+1 hour", 200), ("-1 second", 401)):
            server.change(
                "UPDATE tokens SET expires_at = datetime('now', ?) || '.000000' WHERE id = ?",
                over,
                made["id"],
            )
            assert client.get("/v1/methods").status_code == status


def test_when_a_token_was_used_last_is_written_once_a_minute(server: Server) -> None:
    made = server.client.post("/v1/tokens", json={"name": "busy", "scopes": ["read"]}).json()
    assert made["last_used_at"] is None

    def used() -> str:
        return next(
            one["last_used_at"]
            for one in server.client.get("/v1/tokens").json()["items"]
            if one["id"] == made["id"]
        )

    with server.as_token(made["secret"]) as client:
        client.get("/v1/methods")
        first = used()
        assert first is not None
        client.get("/v1/methods")
        assert used() == first


def test_a_token_of_a_project_that_does_not_exist_cannot_be_made(server: Server) -> None:
    answer = server.client.post("/v1/tokens", json={"name": "x", "project": "nowhere"})
    assert answer.status_code == 404


def test_listings_come_in_pages_the_newest_first(server: Server) -> None:
    made = [server.client.post("/v1/tokens", json={"name": f"t{n}"}).json()["id"] for n in range(5)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while len(seen) < 5:
        page = server.client.get("/v1/tokens", params={"limit": 2, **cursor}).json()
        assert len(page["items"]) == 2
        seen += [one["id"] for one in page["items"]]
        cursor = {"cursor": page["next"]}
    assert seen[:5] == made[::-1]
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("cursor", ["x", "", "%00", "MQ", "bnVsbA", "Im5vdA", "IlwwIg", "é", "a" * 501])
def test_a_cursor_that_is_none_is_refused(server: Server, cursor: str) -> None:
    answer = server.client.get("/v1/tokens", params={"cursor": cursor})
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == "cursor"


def test_the_last_page_has_no_cursor(server: Server) -> None:
    response: httpx.Response = server.client.get("/v1/methods", params={"limit": 200})
    assert response.json()["next"] is None
    names = [method["name"] for method in response.json()["items"]]
    assert names == sorted(names)
    paged = server.client.get("/v1/methods", params={"limit": 2}).json()
    rest = server.client.get("/v1/methods", params={"limit": 200, "cursor": paged["next"]}).json()
    assert [method["name"] for method in paged["items"] + rest["items"]] == names
