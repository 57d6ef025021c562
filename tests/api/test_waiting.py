"""`Prefer: wait=N` as clients write it, and statements that nobody waits for."""

from __future__ import annotations

import asyncio
import threading

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from api.waiting import LONGEST, preferred_wait, while_wanted
from datapruner.errors import UsageError
from datapruner.query.ending import Ending
from tests.waiting import PATIENCE


def asking(*preferences: str) -> Request:
    headers = [(b"prefer", value.encode()) for value in preferences]
    return Request({"type": "http", "headers": headers})


@pytest.mark.parametrize(
    ("preferences", "seconds"),
    [
        ([], None),
        (["return=minimal"], None),
        (["wait=30"], 30),
        (["respond-async, wait=5"], 5),
        (["respond-async", "WAIT = 7; x=y"], 7),
        (['wait="12"'], 12),
        (["wait=0"], 0),
        (["wait=601"], LONGEST),
        (["await=3"], None),
    ],
)
def test_the_wait_is_found_among_the_preferences(preferences: list[str], seconds: float | None) -> None:
    assert preferred_wait(asking(*preferences)) == seconds


@pytest.mark.parametrize("value", ["wait=soon", "wait=-1", "wait=1.5", "wait=nan", "wait=9999999999"])
def test_a_wait_that_is_no_number_of_seconds_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="Prefer"):
        preferred_wait(asking(value))


@pytest.mark.parametrize("why", ["the client went away", "the service stops"])
def test_a_statement_that_nobody_waits_for_any_more_is_ended(why: str) -> None:
    begun, ended = threading.Event(), threading.Event()

    def statement(ending: Ending) -> None:
        with ending.waking(ended.set):
            begun.set()
            ended.wait(PATIENCE)
            raise UsageError("it was ended")

    async def receive() -> Message:
        if why == "the service stops":
            await asyncio.Event().wait()
        await asyncio.to_thread(begun.wait)
        return {"type": "http.disconnect"}

    async def ask() -> None:
        asking = asyncio.create_task(while_wanted(Request({"type": "http"}, receive), statement))
        await asyncio.to_thread(begun.wait)
        if why == "the service stops":
            asking.cancel()
        await asking

    with pytest.raises((ClientDisconnect, asyncio.CancelledError)):
        asyncio.run(ask())
    assert ended.is_set()
