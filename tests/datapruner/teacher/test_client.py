"""The teacher client against a server that does what teachers do on bad days."""

from __future__ import annotations

import asyncio
import logging
import socket
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from datapruner.errors import StorageError, UsageError
from datapruner.teacher import (
    Answer,
    LimitReachedError,
    Question,
    Teacher,
    TeacherError,
    TeacherUnavailableError,
    load,
)
from tests.datapruner.client.unruly import Handler, Unruly, answers, breaks, is_silent, sends
from tests.datapruner.teacher.asking import ask, ask_at_once, ask_each, failure
from tests.datapruner.teacher.conftest import KEY, Connect, question
from tests.datapruner.teacher.scripted import asked, echoes, fails, says, when
from tests.waiting import PATIENCE, until

# What is sent, and what comes back


def test_a_question_is_sent_as_a_chat_completion(connect: Connect, script: Unruly) -> None:
    script.will(says("Because."))
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Why? 🙏 \ud800"}]
    (answer,) = ask(connect(), Question("p@1", "r", messages, 0.5, 50))
    assert answer == Answer("Because.", "stop", 11, 7, stored=False)
    (seen,) = script.seen
    assert (seen.method, seen.path) == ("POST", "/v1/chat/completions")
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert asked(seen) == {
        "model": "m",
        "messages": messages,
        "stream": False,
        "temperature": 0.5,
        "max_tokens": 50,
    }


def test_services_that_name_things_differently_are_obeyed(connect: Connect, script: Unruly) -> None:
    script.will(says("x"))
    ask(connect(max_tokens_name="max_completion_tokens", send_temperature=False), question())
    body = asked(script.seen[0])
    assert body["max_completion_tokens"] == 50
    assert not {"max_tokens", "temperature"} & body.keys()


def test_without_a_key_no_key_is_sent(
    connect: Connect, script: Unruly, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATAPRUNER_TEACHER_API_KEY")
    script.will(says("x"))
    ask(connect(), question())
    assert "authorization" not in script.seen[0].headers


@pytest.mark.parametrize(
    ("text", "finish", "expected"),
    [
        ("2 + 2 = 5", "stop", ("2 + 2 = 5", "stop")),  # wrong, which is for the caller to find out
        ("It goes on and", "length", ("It goes on and", "length")),
        ("", "stop", ("", "stop")),
        (None, "content_filter", ("", "content_filter")),
        ("x", None, ("x", "unknown")),
    ],
)
def test_what_the_teacher_says_is_given_as_it_is(
    connect: Connect, script: Unruly, text: str | None, finish: str | None, expected: tuple[str, str]
) -> None:
    script.will(says(text, finish))
    (answer,) = ask(connect(), question())
    assert (answer.text, answer.finish) == expected
    assert len(script.seen) == 1


def test_tokens_are_estimated_where_the_service_does_not_count(connect: Connect, script: Unruly) -> None:
    script.will(says("x" * 30, used=None))
    (answer,) = ask(connect(), question(text="y" * 60))
    assert (answer.prompt_tokens, answer.completion_tokens) == (28, 10)


# What passes


@pytest.mark.parametrize(
    "trouble",
    [
        fails(429),
        fails(500),
        fails(502),
        fails(529),
        breaks,
        answers({"choices": []}),
        answers({"error": "overloaded"}),
        sends(b""),
        sends(b"<html>"),
        sends(b'{"choices": [{"mess', length=5000),
        sends(b"[" * 100_000),
        sends(b"\xff\xfe"),
    ],
    ids=[
        *("429", "500", "502", "529", "reset", "no-choices", "error-in-200"),
        *("empty", "html", "cut", "nested", "not-utf8"),
    ],
)
def test_a_failure_that_may_pass_is_repeated(connect: Connect, script: Unruly, trouble: Any) -> None:
    script.will(trouble, trouble, says("Because."))
    (answer,) = ask(connect(), question())
    assert answer.text == "Because."
    assert len(script.seen) == 3
    assert len({seen.body for seen in script.seen}) == 1


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (fails(429), "rate"),
        (fails(500), "server"),
        (breaks, "connection"),
        (sends(b"{}"), "malformed"),
        (sends(b'{"choices": [{"mess', length=5000), "connection"),
    ],
)
def test_a_failure_that_does_not_pass_is_an_error_of_the_row(
    connect: Connect, script: Unruly, trouble: Any, reason: str
) -> None:
    script.will(says("x"), trouble)
    teacher = connect(concurrency=1)
    results = ask_each(teacher, [question("good"), question("bad")])
    error = results["bad"]
    assert isinstance(error, TeacherError)
    assert error.reason == reason
    assert len(script.seen) == 1 + 4
    assert isinstance(results["good"], Answer)
    assert teacher.usage.requests == 5


def test_a_retry_after_is_obeyed_by_all(connect: Connect, script: Unruly) -> None:
    script.will(fails(429, Retry_After="0.4"), echoes)

    async def main() -> list[float]:
        async with connect() as teacher:
            start = time.monotonic()
            first = asyncio.create_task(teacher.ask(question("told")))
            while not teacher._budget._held_until:
                await asyncio.sleep(0.01)
            await teacher.ask(question("untold"))
            untold = time.monotonic() - start
            await first
            return [untold, time.monotonic() - start]

    untold, told = asyncio.run(main())
    assert min(untold, told) >= 0.4


def test_a_retry_after_beyond_patience_ends_the_question(connect: Connect, script: Unruly) -> None:
    script.will(fails(429, Retry_After="3600"))
    assert failure(connect()).reason == "rate"
    assert len(script.seen) == 1


def test_a_question_that_runs_out_of_time_twice_is_given_up(connect: Connect, script: Unruly) -> None:
    script.will(is_silent)
    error = failure(connect(timeout_seconds=0.5))
    assert error.reason == "time-out"
    assert "0.5 s" in str(error)
    until(lambda: len(script.seen) == 2)


def test_a_reply_that_trickles_runs_out_of_time_too(connect: Connect, script: Unruly) -> None:
    def trickles(handler: Handler) -> None:
        handler.begin(200, {}, 1 << 20)
        while not handler.unruly.over.wait(0.05):
            handler.wfile.write(b" ")

    script.will(trickles)
    assert failure(connect(timeout_seconds=0.2)).reason == "time-out"


def test_a_reply_without_end_is_refused(
    connect: Connect, script: Unruly, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datapruner.teacher.client._MAX_REPLY_BYTES", 1000)
    script.will(says("x" * 2000))
    assert failure(connect()).reason == "malformed"
    assert len(script.seen) == 1


# What does not pass


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (fails(401), "DATAPRUNER_TEACHER_API_KEY"),
        (fails(402), "money"),
        (fails(404, "no such model"), "no such model.*DATAPRUNER_TEACHER_MODEL"),
        (fails(429, code="insufficient_quota"), "quota"),
        (fails(400, code="unsupported_parameter"), "DATAPRUNER_TEACHER_MAX_TOKENS_NAME"),
        (answers({}, 307, Location="http://elsewhere.invalid/"), "BASE_URL"),
    ],
)
def test_what_no_row_would_survive_stops_at_once(
    connect: Connect, script: Unruly, trouble: Any, told: str
) -> None:
    script.will(trouble)
    with pytest.raises(TeacherUnavailableError, match=told):
        ask_each(connect(), [question(str(i)) for i in range(20)])
    assert len(script.seen) == 1


def test_a_refused_question_is_an_error_of_its_row_only(connect: Connect, script: Unruly) -> None:
    script.will(says("x"), fails(400, "maximum context length is 2048"), says("y"))
    results = ask_each(connect(), [question(row) for row in "abc"])
    error = results["b"]
    assert isinstance(error, TeacherError)
    assert error.reason == "refused"
    assert "maximum context length" in str(error)
    assert len(script.seen) == 3


@pytest.mark.parametrize("status", [403, 500])
def test_a_teacher_that_answers_nothing_stops_the_job(connect: Connect, script: Unruly, status: int) -> None:
    script.will(fails(status))
    with pytest.raises(TeacherUnavailableError, match="8 questions in a row"):
        ask_each(connect(), [question(str(i)) for i in range(20)])


def test_an_address_where_nothing_listens_is_told_soon(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        teacher = Teacher(load(base_url=url, model="m"), store=tmp_path / "a.sqlite")
        teacher.retries = type(teacher.retries)(first=0.01)
        with pytest.raises(TeacherUnavailableError, match="is it running"):
            ask(teacher, question())


def test_a_teacher_that_is_not_set_is_told() -> None:
    with pytest.raises(UsageError, match="DATAPRUNER_TEACHER_BASE_URL"):
        Teacher(load(model="m"))


# Once only


def test_a_restarted_job_asks_nothing_twice(connect: Connect, script: Unruly) -> None:
    script.will(echoes)
    rows = [question(str(i), f"row {i}") for i in range(30)]
    first = ask_each(connect(), rows[:20])
    teacher = connect()
    both = ask_each(teacher, rows)
    assert len(script.seen) == 30
    for row, answer in first.items():
        again = both[row]
        assert isinstance(answer, Answer)
        assert isinstance(again, Answer)
        assert (again.text, again.stored, answer.stored) == (f"re: row {row}", True, False)
    assert (teacher.usage.stored, teacher.usage.answers, teacher.usage.requests) == (20, 10, 10)


def test_a_failed_question_is_asked_again_by_the_next_job(connect: Connect, script: Unruly) -> None:
    script.will(fails(400), says("now"))
    failure(connect())
    assert ask(connect(), question())[0].text == "now"


@pytest.mark.parametrize(
    "other",
    [
        question(attempt=1),
        question(prompt="p@2"),
        question(row="r2"),
        question(text="an edited prompt of the same version"),
        question(temperature=1.0),
        question(max_tokens=51),
    ],
)
def test_another_question_never_gets_the_stored_answer(
    connect: Connect, script: Unruly, other: Question
) -> None:
    script.will(says("first"), says("second"))
    assert [answer.text for answer in ask(connect(), question(), other)] == ["first", "second"]


def test_another_model_is_asked_anew(connect: Connect, script: Unruly) -> None:
    script.will(says("first"), says("second"))
    assert ask(connect(), question())[0].text == "first"
    assert ask(connect(model="other"), question())[0].text == "second"


def test_two_askers_of_one_question_share_its_answer(connect: Connect, script: Unruly) -> None:
    all_ask = threading.Event()
    script.will(when(all_ask, says("once")), says("twice"))

    async def main() -> list[Answer]:
        async with connect() as teacher:
            asking = [asyncio.create_task(teacher.ask(question())) for _ in range(5)]
            await asyncio.sleep(0)
            all_ask.set()
            return await asyncio.gather(*asking)

    assert {answer.text for answer in asyncio.run(main())} == {"once"}
    assert len(script.seen) == 1


def test_an_asker_that_gives_up_leaves_the_question_to_the_next(connect: Connect, script: Unruly) -> None:
    script.will(is_silent, says("now"))

    async def main() -> Answer:
        async with connect() as teacher:
            impatient = asyncio.create_task(teacher.ask(question()))
            while not script.seen:
                await asyncio.sleep(0.01)
            patient = asyncio.create_task(teacher.ask(question()))
            await asyncio.sleep(0.05)
            impatient.cancel()
            return await patient

    assert asyncio.run(main()).text == "now"


# Bounds


def test_no_more_than_the_bound_are_in_flight(connect: Connect, script: Unruly) -> None:
    flying, most = 0, 0
    count, three = threading.Lock(), threading.Event()

    def counts(handler: Handler) -> None:
        nonlocal flying, most
        with count:
            flying += 1
            most = max(most, flying)
            if most == 3:
                three.set()
        assert three.wait(PATIENCE)
        time.sleep(0.02)
        with count:
            flying -= 1
        echoes(handler)

    script.will(counts)
    answered = ask_at_once(connect(concurrency=3), [question(str(i)) for i in range(40)])
    assert (most, len(answered)) == (3, 40)


def test_a_limit_of_requests_stops_once_what_is_in_flight_is_answered(
    connect: Connect, script: Unruly
) -> None:
    script.will(echoes)
    questions = [question(str(i)) for i in range(30)]
    with pytest.raises(LimitReachedError, match=r"DATAPRUNER_TEACHER_MAX_REQUESTS = 10 .*not asked again"):
        ask_at_once(connect(max_requests=10), questions)
    assert len(script.seen) == 10
    teacher = connect(max_requests=20)
    ask_at_once(teacher, questions)
    assert (teacher.usage.stored, teacher.usage.requests, len(script.seen)) == (10, 20, 30)


def test_what_was_used_is_counted_and_priced(connect: Connect, script: Unruly) -> None:
    script.will(says("x", used=(1000, 200)))
    teacher = connect(prompt_price=1.0, completion_price=5.0)
    ask(teacher, question("a"), question("b"), question("a"))
    assert (teacher.usage.prompt_tokens, teacher.usage.completion_tokens) == (2000, 400)
    assert teacher.cost == pytest.approx(0.004)


@pytest.mark.parametrize(("trouble", "counted"), [(breaks, (100, 57)), (fails(500), (0, 7))])
def test_an_answer_that_was_lost_counts_with_all_it_may_have_cost(
    connect: Connect, script: Unruly, trouble: Any, counted: tuple[int, int]
) -> None:
    script.will(trouble, says("x", used=(0, 7)))
    teacher = connect()
    ask(teacher, question(text="x" * 276))
    assert (teacher.usage.prompt_tokens, teacher.usage.completion_tokens) == counted


def test_repeated_requests_count(connect: Connect, script: Unruly) -> None:
    script.will(fails(500))
    with pytest.raises(LimitReachedError):
        ask(connect(max_requests=2), question())
    assert len(script.seen) == 2


# What must not get out


@pytest.mark.parametrize(
    "trouble",
    [
        fails(401, f"Incorrect API key provided: {KEY}."),
        fails(400, f"bad {KEY} " * 50),
        fails(500, KEY),
        sends(f"<p>{KEY}".encode(), 418),
        answers({"error": {"message": KEY}}),
        breaks,
    ],
)
def test_the_key_is_in_no_error_log_or_file(
    connect: Connect, script: Unruly, tmp_path: Path, caplog: pytest.LogCaptureFixture, trouble: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    script.will(says("stored"), trouble)
    teacher = connect()
    with pytest.raises((TeacherError, TeacherUnavailableError)) as caught:
        ask(teacher, question("good"), question("bad"))
    said = [repr(teacher), repr(teacher.settings), str(teacher.settings.model_dump()), caplog.text]
    error: BaseException | None = caught.value
    while error is not None:
        said += [str(error), repr(error), repr(vars(error))]
        if isinstance(error, httpx.RequestError):
            said += [repr(error.request), repr(error.request.headers)]
        error = error.__cause__ or error.__context__
    said += [path.read_bytes().decode(errors="replace") for path in tmp_path.iterdir()]
    assert KEY[:12] not in "\n".join(said)
    assert script.seen[-1].headers["authorization"].endswith(KEY)


def test_what_a_service_says_is_shown_in_one_printable_line(connect: Connect, script: Unruly) -> None:
    script.will(fails(400, "no\x1b[31m\nnever " + "x" * 1000))
    message = str(failure(connect()))
    assert message.startswith("the teacher answered 400: no [31m never xxx")
    assert message.isprintable()
    assert len(message) < 400


def test_a_store_that_cannot_be_written_stops_the_job(
    connect: Connect, script: Unruly, tmp_path: Path
) -> None:
    script.will(says("x"))
    teacher = connect()

    async def main() -> None:
        async with teacher:
            await teacher.ask(question("first"))
            with sqlite3.connect(tmp_path / "answers.sqlite") as other:
                other.execute("DROP TABLE answers")
            other.close()
            await teacher.ask(question("second"))

    with pytest.raises(StorageError, match=r"answers\.sqlite"):
        asyncio.run(main())
