"""`Prefer: wait=N` as clients write it."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from api.job_answers import LONGEST, preferred_wait
from datapruner.errors import UsageError


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
