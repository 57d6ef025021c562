"""Retries, errors and what is sent, against a server that misbehaves."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from datapruner import errors
from datapruner.client import Client
from datapruner.client._problems import raised
from datapruner.http.retries import Retries
from datapruner.problem import Problem
from datapruner.service import problems
from tests.datapruner.client.conftest import QUICK, Through
from tests.datapruner.client.unruly import Unruly, answers, breaks, is_silent, problem, sends
from tests.waiting import PATIENCE

JOB = {
    "id": "job_1",
    "kind": "run",
    "state": "queued",
    "priority": 0,
    "attempt": 0,
    "max_attempts": 3,
    "cancel_requested": False,
    "schedule_id": None,
    "progress": None,
    "result": None,
    "error": None,
    "created_at": "2026-01-02T03:04:05Z",
    "started_at": None,
    "finished_at": None,
}
PAGE: dict[str, Any] = {"items": [], "next": None}


def start_run(client: Any) -> Any:
    return client.runs.start_create("alpaca", method="qtuning", keep=0.5)


def test_a_post_without_an_answer_is_repeated_with_the_same_key_and_body(
    unruly: Unruly, through: Through
) -> None:
    unruly.will(breaks, breaks, answers(JOB, 202))
    assert through(unruly.url, start_run).id == "job_1"
    assert len(unruly.seen) == 3
    assert len({request.headers["idempotency-key"] for request in unruly.seen}) == 1
    (body,) = {request.body for request in unruly.seen}
    assert json.loads(body) == {"dataset": "alpaca", "version": None, "method": "qtuning", "keep": 0.5}


def test_two_posts_have_two_keys(unruly: Unruly) -> None:
    unruly.will(answers(JOB, 202))
    with Client(unruly.url, "secret") as client:
        start_run(client)
        start_run(client)
    assert len({request.headers["idempotency-key"] for request in unruly.seen}) == 2


def test_an_upload_is_streamed_and_is_the_same_when_repeated(
    unruly: Unruly, through: Through, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"instruction": "a", "output": "b"}\n' * 5000)
    unruly.will(breaks, answers(JOB, 202))
    through(unruly.url, lambda client: client.start_prune(path, method="qtuning", keep=0.5))
    first, second = unruly.seen
    assert first.body == second.body
    assert path.read_bytes() in second.body
    assert second.headers["content-type"] == first.headers["content-type"]
    assert second.headers["content-type"].startswith("multipart/form-data; boundary=")


def test_a_retry_after_is_obeyed(unruly: Unruly, through: Through) -> None:
    unruly.will(problem("quota-exceeded", 429, Retry_After="1"), answers(PAGE))
    begin = time.monotonic()
    assert through(unruly.url, lambda client: client.runs.list()) == []
    assert time.monotonic() - begin >= 1.0
    assert len(unruly.seen) == 2


@pytest.mark.parametrize(
    ("kind", "status"), [("request-in-progress", 409), ("quota-exceeded", 429), ("storage-unavailable", 503)]
)
def test_whoever_is_told_to_come_again_does(unruly: Unruly, kind: str, status: int) -> None:
    unruly.will(problem(kind, status, Retry_After="0"), answers(JOB, 202))
    with Client(unruly.url, "secret") as client:
        client._session.retries = QUICK
        start_run(client)
    assert len(unruly.seen) == 2


def test_a_request_that_is_at_work_elsewhere_is_waited_for_longer_than_one_that_fails(
    unruly: Unruly, through: Through
) -> None:
    busy = problem("request-in-progress", 409, Retry_After="0")
    unruly.will(*[busy] * (3 * QUICK.count), answers(JOB, 202))
    through(unruly.url, start_run)
    unruly.will(busy)
    with pytest.raises(errors.RepeatedKeyError):
        through(unruly.url, start_run, retries=replace(QUICK, patience=0.001))


def test_a_retry_after_may_be_a_date(unruly: Unruly, through: Through) -> None:
    unruly.will(
        problem("storage-unavailable", 503, Retry_After=formatdate(time.time() - 5, usegmt=True)),
        answers(PAGE),
    )
    assert through(unruly.url, lambda client: client.runs.list()) == []
    assert len(unruly.seen) == 2


def test_a_retry_after_of_an_hour_is_not_waited_for(unruly: Unruly, through: Through) -> None:
    unruly.will(problem("quota-exceeded", 429, "too many", Retry_After="3600"))
    with pytest.raises(errors.QuotaError, match="too many"):
        through(unruly.url, start_run)
    assert len(unruly.seen) == 1


def test_a_limit_that_does_not_pass_is_told_at_once(unruly: Unruly, through: Through) -> None:
    unruly.will(problem("quota-exceeded", 429, "the project has 100 rows of 100"))
    with pytest.raises(errors.QuotaError, match="100 rows of 100"):
        through(unruly.url, start_run)
    assert len(unruly.seen) == 1


def test_what_stays_broken_is_given_up_with_its_reason(unruly: Unruly, through: Through) -> None:
    unruly.will(problem("storage-unavailable", 503, "the disk is full"))
    with pytest.raises(errors.StorageError, match="the disk is full"):
        through(unruly.url, start_run)
    assert len(unruly.seen) == 4
    unruly.will(breaks)
    with pytest.raises(errors.ServiceError, match=f"POST /runs: the connection to {unruly.url} broke"):
        through(unruly.url, start_run)
    assert len(unruly.seen) == 4


def test_a_delete_that_may_have_arrived_is_not_repeated(unruly: Unruly, through: Through) -> None:
    unruly.will(breaks, answers({"deleted": True, "dependents": []}))
    with pytest.raises(errors.ServiceError):
        through(unruly.url, lambda client: client.runs.delete("run_1"))
    assert len(unruly.seen) == 1


def test_a_server_that_is_silent_is_a_timeout(unruly: Unruly) -> None:
    unruly.will(is_silent)
    with (
        Client(unruly.url, "secret", timeout=0.5, retries=0) as client,
        pytest.raises(errors.ServiceError, match=r"GET /runs/run_1: .* no answer in time"),
    ):
        client.runs.get("run_1")


def test_a_service_that_is_not_there_says_soon_what_to_start(through: Through) -> None:
    begin, patient = time.monotonic(), Retries(count=1000, first=0.1, longest=2.0)
    with pytest.raises(errors.ServiceError, match=r"cannot reach http://127\.0\.0\.1:9: .*datapruner serve"):
        through("http://127.0.0.1:9", lambda client: client.health(), retries=patient)
    assert time.monotonic() - begin < PATIENCE


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, errors.DataprunerError)
        and kind is not errors.DataprunerError
    ],
)
def test_every_error_of_the_tree_comes_back_as_itself(kind: type[errors.DataprunerError]) -> None:
    sent = problems.problem(kind("a reason", remedy="do that", field="keep"))
    back = raised(Problem.model_validate(sent))
    assert type(back) is kind
    assert (back.message, back.remedy, back.field) == ("a reason", "do that", "keep")
    assert back.problem == Problem.model_validate(sent)


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("unauthorized", 401, errors.DeniedError),
        ("missing-scope", 403, errors.DeniedError),
        ("too-large", 413, errors.QuotaError),
        ("malformed", 400, errors.UsageError),
        ("of-next-year", 422, errors.UsageError),
        ("internal", 500, errors.ServiceError),
    ],
)
def test_other_kinds_of_problems_are_told_by_status(
    unruly: Unruly, through: Through, kind: str, status: int, error: type[errors.DataprunerError]
) -> None:
    unruly.will(problem(kind, status, "no", remedy="try", field="x", request_id="r1", scope="sql"))
    with pytest.raises(error, match=r"no \(try\)") as caught:
        through(unruly.url, start_run)
    assert type(caught.value) is error
    assert caught.value.problem is not None
    assert caught.value.problem.request_id == "r1"
    assert caught.value.field == "x"


@pytest.mark.parametrize(
    "behaviour",
    [
        sends(b"<html>It works!</html>", Content_Type="text/html"),
        sends(b"<html>Not here</html>", 404, Content_Type="text/html"),
        sends(b"", 302, Location="https://elsewhere.example/"),
        answers({"another": "document"}),
    ],
)
def test_an_answer_of_something_else_is_no_crash(unruly: Unruly, through: Through, behaviour: Any) -> None:
    unruly.will(behaviour)
    with pytest.raises(errors.ServiceError, match=r"GET .*/v1/runs/run_1 answered .* unexpected body"):
        through(unruly.url, lambda client: client.runs.get("run_1"))
    assert len(unruly.seen) == 1


def test_the_token_is_sent_and_shown_nowhere(unruly: Unruly, through: Through) -> None:
    unruly.will(answers(PAGE))
    with Client(unruly.url, "dpr_very_secret") as client:
        list(client.runs.list())
        assert unruly.seen[0].headers["authorization"] == "Bearer dpr_very_secret"
        shown = [client, client.runs, client._session.wire.http.auth, vars(client._session.wire.http.auth)]
        assert "very_secret" not in repr(shown)
    unruly.will(breaks)
    with pytest.raises(errors.ServiceError) as caught:
        through(unruly.url, lambda client: client.runs.get("run_1"), token="dpr_very_secret")
    error: BaseException | None = caught.value
    while error is not None:
        assert "very_secret" not in repr((error, vars(error), getattr(error, "request", None)))
        error = error.__cause__


@pytest.mark.parametrize("token", ["dpr_a\nX-Evil: 1", "dpr_ä", "two words"])
def test_a_token_that_no_header_can_carry_is_refused_unseen(token: str) -> None:
    with pytest.raises(errors.UsageError, match="token") as caught:
        Client("http://127.0.0.1:9", token)
    assert token not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://localhost", "http://", "http://user:pass@localhost:8000", "http://[::1"]
)
def test_a_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        Client(url, "secret")
    assert caught.value.field == "url"
    assert "pass@" not in str(caught.value)


def test_url_and_token_come_from_the_environment(
    unruly: Unruly, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unruly.will(answers(PAGE))
    monkeypatch.setenv("DATAPRUNER_URL", unruly.url)
    monkeypatch.setenv("DATAPRUNER_HOME", str(tmp_path))
    monkeypatch.setenv("DATAPRUNER_TOKEN", "from-variable")
    (tmp_path / "admin-token").write_text("from-file\n", encoding="ascii")
    with Client() as client:
        list(client.runs.list())
    monkeypatch.delenv("DATAPRUNER_TOKEN")
    with Client() as client:
        list(client.runs.list())
    with Client("http://datapruner.example") as client:
        assert client._session.wire.http.auth is None  # the file is for this machine's service only
    assert [seen.headers["authorization"] for seen in unruly.seen] == [
        "Bearer from-variable",
        "Bearer from-file",
    ]


def test_names_are_quoted_and_cannot_lead_elsewhere(unruly: Unruly, through: Through) -> None:
    unruly.will(problem("not-found", 404))
    with pytest.raises(errors.NotFoundError):
        through(unruly.url, lambda client: client.datasets.get("../tokens?x=1#a b"))
    assert unruly.seen[0].path == "/v1/datasets/..%2Ftokens%3Fx%3D1%23a%20b"
    for name in ("", ".", ".."):
        with pytest.raises(errors.UsageError, match="names no dataset"):
            through(unruly.url, lambda client, name=name: client.datasets.get(name))
    assert len(unruly.seen) == 1


def test_values_that_are_wrong_are_refused_before_they_are_sent(unruly: Unruly, through: Through) -> None:
    wrong = {
        "seed": lambda client: client.runs.start_create("alpaca", method="qtuning", keep=0.5, seed=-1),
        "name": lambda client: client.datasets.start_create("Not a name", [{"a": 1}]),
        "source": lambda client: client.datasets.start_create("alpaca"),
    }
    for field, use in wrong.items():
        with pytest.raises(errors.UsageError) as caught:
            through(unruly.url, use)
        assert caught.value.field == field
    with pytest.raises(errors.UsageError, match="JSON"):
        through(unruly.url, lambda client: client.datasets.start_create("alpaca", [{"a": float("nan")}]))
    assert not unruly.seen


def test_a_listing_follows_its_pages_and_asks_no_sooner_than_needed(unruly: Unruly, through: Through) -> None:
    unruly.will(
        answers({"items": [JOB, JOB], "next": "c&1"}),
        answers({"items": [], "next": "c2"}),
        answers({"items": [JOB], "next": None}),
    )
    assert len(through(unruly.url, lambda client: client.jobs.list(state="queued"))) == 3
    assert [seen.path for seen in unruly.seen] == [
        "/v1/jobs?state=queued",
        "/v1/jobs?state=queued&cursor=c%261",
        "/v1/jobs?state=queued&cursor=c2",
    ]
    unruly.will(answers({"items": [JOB, JOB], "next": "c1"}))
    with Client(unruly.url, "secret") as client:
        listing = client.jobs.list()
        assert not unruly.seen
        next(listing)
        next(listing)
        assert len(unruly.seen) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://me:hidden-words@127.0.0.1:8000",
        "me:hidden-words@127.0.0.1:8000",
        "http://me:hidden-words#@127.0.0.1:8000",
        "ftp://me:hidden-words@127.0.0.1",
        "http://:hidden-words",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(errors.UsageError) as refused:
        Client(url, "token")
    assert "hidden" not in str(refused.value)
