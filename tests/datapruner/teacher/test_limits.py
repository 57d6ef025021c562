"""Rates and limits, without a teacher."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from datapruner.teacher import LimitReachedError, Question, load
from datapruner.teacher.limits import Budget, Tokens, estimated, text_tokens
from tests.waiting import PATIENCE

PRICES = {"prompt_price": 1.0, "completion_price": 10.0}


async def _use(budget: Budget, reserved: Tokens, used: Tokens, seconds: float = 0.01) -> None:
    await budget.reserve(reserved)
    await asyncio.sleep(seconds)
    budget.settle(reserved, used)


def _run(given: dict[str, Any], count: int, reserved: Tokens, used: Tokens) -> tuple[Budget, int]:
    """The budget afterwards, and how many of `count` at once were let through."""

    async def main() -> tuple[Budget, int]:
        budget = Budget(load(**given))
        results = await asyncio.gather(
            *(_use(budget, reserved, used) for _ in range(count)), return_exceptions=True
        )
        stopped = [result for result in results if result is not None]
        assert all(isinstance(error, LimitReachedError) for error in stopped)
        return budget, count - len(stopped)

    return asyncio.run(main())


@pytest.mark.parametrize("count", [1, 7, 50])
def test_a_limit_of_tokens_is_never_passed(count: int) -> None:
    budget, through = _run({"max_total_tokens": 100}, count, Tokens(5, 10), Tokens(4, 6))
    assert budget.usage.prompt_tokens + budget.usage.completion_tokens == through * 10 <= 100
    # 9 leave 90 used, and 15 more would not fit.
    assert through == min(count, 9)


def test_a_limit_of_money_is_never_passed() -> None:
    given = {"max_cost": 0.001, **PRICES}
    budget, through = _run(given, 40, Tokens(100, 10), Tokens(100, 5))
    assert budget.cost == pytest.approx(through * 150 / 1e6)
    # 5 leave 750 of 1000 used; 200 more fit once, 200 after that do not.
    assert through == 6


def test_what_does_not_fit_waits_for_what_is_in_flight() -> None:
    """All 5 fit one after another, though 2 reservations do not fit beside each other."""
    _, through = _run({"max_total_tokens": 100}, 5, Tokens(0, 60), Tokens(0, 8))
    assert through == 5


def test_requests_start_at_even_distances() -> None:
    async def main() -> list[float]:
        budget, starts = Budget(load(requests_per_minute=1200)), []

        async def one() -> None:
            await budget.reserve(Tokens())
            starts.append(time.monotonic())
            budget.settle(Tokens(), Tokens())

        await asyncio.gather(*(one() for _ in range(6)))
        return starts

    begin = time.monotonic()
    for number, start in enumerate(sorted(asyncio.run(main()))):
        assert start - begin >= 0.05 * number


def test_a_rate_of_tokens_counts_what_was_really_used() -> None:
    """60,000 tokens are reserved each, of 6000 a minute: ten minutes. Used are 10: a tenth of a second."""

    async def main() -> float:
        budget = Budget(load(tokens_per_minute=6000))
        started = time.monotonic()
        for _ in range(5):
            await budget.reserve(Tokens(0, 60_000))
            budget.settle(Tokens(0, 60_000), Tokens(0, 10))
        return time.monotonic() - started

    assert 0.38 <= asyncio.run(main()) < PATIENCE


def test_a_cancelled_wait_gives_back_what_it_reserved() -> None:
    async def main() -> Budget:
        budget = Budget(load(max_requests=2, requests_per_minute=1))
        await budget.reserve(Tokens(1, 1))
        waiting = asyncio.create_task(budget.reserve(Tokens(1, 1)))
        while budget.usage.requests < 2:
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        budget.settle(Tokens(1, 1), Tokens(1, 1))
        return budget

    assert asyncio.run(main()).usage.requests == 1


def test_tokens_are_estimated_by_bytes() -> None:
    assert [text_tokens(text) for text in ("", "a", "abc", "abcd", "日本", "\ud800")] == [0, 1, 1, 2, 2, 1]
    messages = [{"role": "system", "content": "abc"}, {"role": "user", "content": "abcdef"}]
    assert estimated(Question("p", "r", messages, 0.0, 50)) == Tokens(19, 50)
    assert estimated(Question("p", "r", messages, 0.0, None)) == Tokens(19, 19)
