"""Ids of rows."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from datapruner.catalog.models import new_id


def test_ids_of_one_moment_are_different_and_sort_in_the_order_in_which_they_were_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now)
    ids = [new_id("job") for _ in range(1000)]
    assert ids == sorted(set(ids))
    assert {len(each) for each in ids} == {len("job_") + 22}


def test_an_id_sorts_after_those_before_it_when_the_clock_has_gone_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, now = new_id("job"), time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 3600 * 10**9)
    assert new_id("job") > first


def test_threads_draw_different_ids_each_in_its_order() -> None:
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda _: [new_id("job") for _ in range(500)], range(4)))
    assert all(ids == sorted(ids) for ids in drawn)
    assert len(set().union(*drawn)) == 4 * 500
