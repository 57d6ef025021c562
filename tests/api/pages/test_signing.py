"""Browsers sign in and out; what they change is meant, and nothing is seen without."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.browser import Visit
from tests.served import Server

PAGES = ["/", "/runs/run_1", "/runs/run_1/details", "/sql"]


@pytest.fixture
def anonymous(server: Server) -> Iterator[httpx.Client]:
    """A client without a token that keeps cookies, as a browser does, and follows nothing."""
    with server.as_token(None) as client:
        yield client


def _signed_in(client: httpx.Client, token: str) -> httpx.Client:
    answer = client.post("/sign-in", data={"token": token, "next": "/"})
    assert answer.status_code == 303, answer.text
    return client


def test_a_browser_signs_in_sees_the_first_page_and_signs_out(visit: Visit, server: Server) -> None:
    page = visit.open("/")
    assert page.url == f"{server.url}/sign-in"
    visit.usable()
    visit.sign_in(server.token)
    assert page.get_by_role("heading", level=1).inner_text() == "Datasets and runs"
    cookie = page.context.cookies()[0]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(f"{server.url}/sign-in")
    assert not page.context.cookies()
    assert visit.open("/").url == f"{server.url}/sign-in"


def test_a_wrong_token_is_refused_in_words(visit: Visit) -> None:
    visit.expected = ["status of 403"]
    page = visit.open("/sign-in")
    page.get_by_label("Token").fill("dpr_no")
    page.get_by_role("button", name="Sign in").click()
    assert page.get_by_role("alert").inner_text() == "This token is unknown, revoked or over."
    assert not page.context.cookies()
    visit.usable()


def test_after_signing_in_the_page_that_was_wanted_comes(anonymous: httpx.Client, server: Server) -> None:
    assert anonymous.get("/?a=1&b=2").headers["location"] == "/sign-in?next=/%3Fa%3D1%26b%3D2"
    assert 'value="/?a=1&amp;b=2"' in anonymous.get("/sign-in?next=/%3Fa%3D1%26b%3D2").text
    wanted = {"token": server.token, "next": "/?a=1&b=2"}
    assert anonymous.post("/sign-in", data=wanted).headers["location"] == "/?a=1&b=2"


@pytest.mark.parametrize(
    "elsewhere",
    ["https://example.com/", "//example.com/", "/\\example.com/", "javascript:alert(1)", "x", "/a\nb", ""],
)
def test_nobody_is_led_to_another_site(anonymous: httpx.Client, server: Server, elsewhere: str) -> None:
    asked = {"token": server.token, "next": elsewhere}
    assert anonymous.post("/sign-in", data=asked).headers["location"] == "/"


@pytest.mark.parametrize("path", PAGES)
def test_pages_send_whoever_is_not_signed_in_to_do_so(anonymous: httpx.Client, path: str) -> None:
    answer = anonymous.get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/sign-in")


def test_a_sign_in_ends_with_its_token(anonymous: httpx.Client, server: Server) -> None:
    secret = server.new_token("read")
    client = _signed_in(anonymous, secret)
    assert client.get("/").status_code == 200
    listed = server.client.get("/v1/tokens", params={"limit": 1}).json()["items"]
    server.client.delete(f"/v1/tokens/{listed[0]['id']}").raise_for_status()
    assert client.get("/").status_code == 303
    assert client.get("/v1/datasets").status_code == 401


def test_what_is_signed_out_is_worth_nothing_even_to_whoever_kept_the_cookie(
    anonymous: httpx.Client, server: Server
) -> None:
    client = _signed_in(anonymous, server.token)
    kept = dict(client.cookies)
    word = client.get("/").text.split('name="word" content="')[1].split('"')[0]
    assert client.post("/sign-out", data={"word": "other"}).status_code == 403
    assert client.get("/").status_code == 200
    assert client.post("/sign-out", data={"word": word}).headers["location"] == "/sign-in"
    client.cookies.update(kept)
    assert client.get("/").status_code == 303


def test_a_change_with_a_cookie_needs_the_word_of_a_page(anonymous: httpx.Client, server: Server) -> None:
    client = _signed_in(anonymous, server.token)
    body = {"sql": "SELECT 1 AS one"}
    assert client.get("/v1/datasets").status_code == 200
    refused = client.post("/v1/sql", json=body)
    assert refused.status_code == 403
    assert refused.json()["type"] == "/problems/not-meant"
    word = client.get("/").text.split('name="word" content="')[1].split('"')[0]
    assert client.post("/v1/sql", json=body, headers={"X-CSRF-Token": word}).status_code == 200


def test_another_site_cannot_sign_a_browser_in(anonymous: httpx.Client, server: Server) -> None:
    headers = {"Sec-Fetch-Site": "cross-site"}
    refused = anonymous.post("/sign-in", data={"token": server.token}, headers=headers)
    assert refused.status_code == 403
    assert "set-cookie" not in refused.headers


def test_a_token_that_may_not_read_sees_why(anonymous: httpx.Client, server: Server) -> None:
    client = _signed_in(anonymous, server.new_token("sql"))
    answer = client.get("/")
    assert answer.status_code == 403
    assert "the token lacks the scope read" in answer.text


def test_pages_allow_no_script_but_their_files(anonymous: httpx.Client) -> None:
    answer = anonymous.get("/sign-in")
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
