"""Differences between two arms and their intervals."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import scipy.stats

from datapruner.evaluation import statistics
from datapruner.evaluation.statistics import Paired, estimate
from datapruner.schemas.evaluations import Estimate


def paired(seeds: int, rows: int, number: int = 0, spread: float = 1.0) -> Paired:
    random = np.random.default_rng(number)
    weights = random.integers(1, 200, rows).astype(np.float64)
    return Paired(random.normal(0.02, spread, (seeds, rows)) * weights, weights)


def bootstrapped(given: Paired, quantiles: list[float]) -> list[float]:
    """Quantiles of the ratio over rows drawn with replacement, row by row."""
    random = np.random.default_rng(99)
    found = []
    for _ in range(4000):
        nats = tokens = 0.0
        for row in random.integers(0, len(given.weights), len(given.weights)).tolist():
            nats += float(given.differences[:, row].mean())
            tokens += float(given.weights[row])
        found.append(nats / tokens)
    return [float(each) for each in np.quantile(found, quantiles)]


def test_the_difference_is_of_all_tokens_and_sets_count_alike() -> None:
    short = Paired(np.array([[-2.0, -1.0], [0.0, -1.0]]), np.array([4.0, 6.0]))  # -0.3 and -0.1 a token
    long = Paired(
        np.array([[10.0, 90.0, 0.0], [0.0, 0.0, 100.0]]), np.array([500.0, 300.0, 200.0])
    )  # 0.1 twice
    assert estimate([short], drawn=False).difference == pytest.approx(-0.2)
    assert estimate([short, long], drawn=False).difference == pytest.approx(-0.05)


def test_the_interval_of_one_seed_is_that_of_a_plain_bootstrap_over_rows_expanded() -> None:
    given = paired(1, 30)
    tail = scipy.stats.norm.cdf(math.sqrt(30 / 29) * scipy.stats.t.ppf(0.025, 29))
    low, high = bootstrapped(given, [tail, 1 - tail])
    found = estimate([given], drawn=True)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03 * (high - low))
    plain = bootstrapped(given, [0.025, 0.975])
    assert found.high - found.low > plain[1] - plain[0]


def test_without_differences_among_rows_the_interval_is_students_over_seeds() -> None:
    by_seed = np.array([0.03, -0.01, 0.05, 0.01])
    weights = np.full(50, 7.0)
    given = Paired(by_seed[:, None] * weights, weights)
    low, high = scipy.stats.t.interval(0.95, 3, by_seed.mean(), scipy.stats.sem(by_seed))
    fixed = estimate([given], drawn=False)
    assert (fixed.low, fixed.high) == pytest.approx((low, high))
    further = scipy.stats.t.ppf(0.975, 3) * by_seed.std(ddof=1) * math.sqrt(1 + 1 / 4)
    drawn = estimate([given], drawn=True)
    assert (drawn.low, drawn.high) == pytest.approx((0.02 - further, 0.02 + further))


def test_the_intervals_of_seeds_and_of_sets_are_put_together_in_quadrature() -> None:
    first, second = paired(3, 40, 1), paired(3, 25, 2)
    found = estimate([first, second], drawn=False)
    by_seed = (first.by_seed() + second.by_seed()) / 2
    of_seeds = scipy.stats.t.ppf(0.975, 2) * scipy.stats.sem(by_seed)
    parts = []
    for each in (first, second):
        count = len(each.weights)
        tail = scipy.stats.norm.cdf(math.sqrt(count / (count - 1)) * scipy.stats.t.ppf(0.025, count - 1))
        [low] = bootstrapped(each, [tail])
        parts.append((each.by_seed().mean() - low) / 2)
    assert found.difference - found.low == pytest.approx(math.hypot(of_seeds, *parts), rel=0.03)


def test_the_same_readings_have_the_same_interval_every_time() -> None:
    assert estimate([paired(3, 40)], drawn=True) == estimate([paired(3, 40)], drawn=True)


def test_arms_that_do_not_differ_have_an_interval_of_nothing() -> None:
    same = Paired(np.zeros((3, 20)), np.ones(20))
    assert estimate([same], drawn=True) == Estimate(difference=0.0, low=0.0, high=0.0)


def test_many_rows_take_no_more_memory_than_a_few_million_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    given = paired(2, 50_000)
    monkeypatch.setattr(statistics, "REPLICATES", 100)
    tracemalloc.start()
    try:
        estimate([given], drawn=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20


def trained(random: np.random.Generator, seeds: int, rows: int, of_rows: float, drawn: bool) -> Paired:
    """A subset against a control, where choosing the subset's rows was worth no more than drawing them.

    Nats per token: what rows an arm trained on moves all of a set by 0.01 (sd) and each row by `of_rows`;
    so does each training again. The subset is one choice; with `drawn`, the control another one each seed.
    """
    weights = np.ceil(random.lognormal(4, 1, rows))

    def rows_chosen() -> np.ndarray:
        return 0.01 * random.standard_normal() * drawn + of_rows * random.standard_t(5, rows)

    def training() -> np.ndarray:
        return 0.01 * random.standard_normal() + of_rows * random.standard_t(5, rows)

    subset, control = rows_chosen(), rows_chosen()
    made = []
    for _ in range(seeds):
        control = rows_chosen() if drawn else control
        made.append((subset + training() - control - training()) * weights)
    return Paired(np.stack(made), weights)


def resampled_both(given: Paired, random: np.random.Generator) -> Estimate:
    """The bootstrap of seeds and rows alike, which is what one would do without thinking of it."""
    seeds, rows = given.differences.shape
    found = []
    for _ in range(100):
        row = random.integers(0, rows, rows)
        kept = given.differences[random.integers(0, seeds, seeds)].mean(axis=0)
        found.append(kept[row].sum() / given.weights[row].sum())
    low, high = np.quantile(found, [0.025, 0.975])
    return Estimate(difference=0.0, low=float(low), high=float(high))


def excludes_zero(found: Estimate) -> bool:
    return found.low > 0 or found.high < 0


@pytest.mark.parametrize(
    ("seeds", "rows", "of_rows", "drawn"),
    [
        (2, 100, 0.02, True),
        (3, 400, 0.02, True),
        (5, 400, 0.02, True),
        (3, 6, 0.2, True),
        (3, 100, 0.02, False),
        (5, 12, 0.2, False),
    ],
)
def test_arms_that_are_worth_the_same_are_told_apart_in_at_most_one_of_twenty_cases(
    monkeypatch: pytest.MonkeyPatch, seeds: int, rows: int, of_rows: float, drawn: bool
) -> None:
    monkeypatch.setattr(statistics, "REPLICATES", 200)
    random = np.random.default_rng(7)
    tried = [trained(random, seeds, rows, of_rows, drawn) for _ in range(400)]
    false = sum(excludes_zero(estimate([each], drawn=drawn)) for each in tried)
    assert false <= 20


def test_a_plain_bootstrap_of_three_seeds_tells_draws_of_random_rows_apart_far_too_often() -> None:
    random = np.random.default_rng(7)
    tried = [trained(random, 3, 400, 0.02, True) for _ in range(100)]
    assert sum(excludes_zero(resampled_both(each, random)) for each in tried) > 15


@pytest.mark.parametrize(("seeds", "apart"), [(3, 6.4), (5, 3.8)])
def test_a_difference_as_large_as_is_said_is_shown_in_four_of_five_cases(
    monkeypatch: pytest.MonkeyPatch, seeds: int, apart: float
) -> None:
    monkeypatch.setattr(statistics, "REPLICATES", 200)
    random, weights = np.random.default_rng(3), np.ones(20)
    shown = 0
    for _ in range(500):
        by_seed = 0.01 * (random.standard_normal((seeds, 1)) - apart)
        shown += estimate([Paired(by_seed * weights, weights)], drawn=True).high < 0
    assert 0.75 <= shown / 500 <= 0.85
