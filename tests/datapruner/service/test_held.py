"""What is held for the next who asks: made once, given up in order, as much as is allowed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest

from datapruner.service.held import Held


def _refuse() -> str:
    raise AssertionError("it is held")


def test_what_was_asked_for_longest_ago_goes_when_more_is_held_than_allowed() -> None:
    held: Held[str] = Held(10, len)
    for text in ("aaaa", "bbbb"):
        assert held.get(text[0], lambda text=text: text) == text  # type: ignore[misc]
    assert held.get("a", _refuse) == "aaaa"
    assert held.get("c", lambda: "cccc") == "cccc"
    assert held.get("a", _refuse) == "aaaa"
    assert held.get("b", lambda: "again") == "again"


def test_the_last_one_is_held_whatever_its_size() -> None:
    held: Held[str] = Held(3, len)
    assert held.get("large", lambda: "x" * 100) == "x" * 100
    assert held.get("large", _refuse) == "x" * 100


def test_whoever_asks_for_what_is_being_made_waits_for_it() -> None:
    held: Held[str] = Held(10, len)
    begun, end = Barrier(2), Event()

    def slowly() -> str:
        begun.wait(30)
        assert end.wait(30)
        return "made"

    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(held.get, "it", slowly)
        begun.wait(30)
        others = [threads.submit(held.get, "it", _refuse) for _ in range(3)]
        end.set()
        assert [each.result(30) for each in (first, *others)] == ["made"] * 4


def test_what_could_not_be_made_is_made_by_the_next() -> None:
    held: Held[str] = Held(10, len)
    with pytest.raises(AssertionError):
        held.get("it", _refuse)
    assert held.get("it", lambda: "made") == "made"
