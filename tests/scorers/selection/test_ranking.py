"""Exact top-k with ties and seeded draws, against plain Python."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.selection.ranking import draws, keep_highest, middle_ranks, ordered
from tests.signal_factory import sample_ids


def slow_top(values: list[float], ids: list[str], count: int) -> set[str]:
    return {
        name for _, name in sorted((-value, name) for value, name in zip(values, ids, strict=True))[:count]
    }


values_with_ties = st.lists(
    st.sampled_from([-math.inf, -2.5, -0.0, 0.0, 1e-300, 1.0, 3.0, 1e300, math.inf]) | st.floats(-5, 5),
    min_size=1,
    max_size=40,
)


@given(values_with_ties, st.integers(0, 45), st.integers(0, 5))
def test_the_highest_are_kept_and_ties_go_to_the_smaller_id(
    values: list[float], count: int, seed: int
) -> None:
    ids = sample_ids(len(values), seed)
    keep = keep_highest(np.array(values), ids, count)
    assert keep.sum() == min(count, len(values))
    assert set(ids[keep]) == slow_top(values, ids.tolist(), count)


@given(values_with_ties)
def test_equal_values_share_the_middle_of_the_ranks_that_they_cover(values: list[float]) -> None:
    ranks = [sum(y < x for y in values) + (sum(y == x for y in values) - 1) / 2 for x in values]
    assert middle_ranks(np.array(values)).tolist() == ranks


@given(values_with_ties, st.integers(0, 45), st.randoms(use_true_random=False))
def test_the_order_of_the_samples_does_not_matter(values: list[float], count: int, random: Any) -> None:
    ids = sample_ids(len(values))
    order = np.array(random.sample(range(len(values)), len(values)))
    kept = keep_highest(np.array(values), ids, count)
    assert np.array_equal(keep_highest(np.array(values)[order], ids[order], count), kept[order])


def test_nothing_is_kept_of_nothing() -> None:
    assert keep_highest(np.empty(0), sample_ids(0), 0).tolist() == []


def test_a_draw_depends_on_seed_and_id_alone() -> None:
    ids = sample_ids(500)
    drawn = draws(ids, 7)
    order = np.random.default_rng(0).permutation(500)
    assert np.array_equal(draws(ids[order], 7), drawn[order])
    assert np.array_equal(draws(ids[:3].astype("<U80"), 7), drawn[:3])
    assert not np.any(draws(ids, 8) == drawn)
    assert np.array_equal(draws(np.array(["a"]), -1), draws(np.array(["a"]), -1))


def test_draws_are_uniform() -> None:
    drawn = np.sort(draws(sample_ids(20_000), 3))
    assert drawn[0] >= 0
    assert drawn[-1] < 1
    # Kolmogorov-Smirnov distance; 1.95 / sqrt(n) is exceeded once in a thousand seeds
    assert np.abs(drawn - (np.arange(20_000) + 0.5) / 20_000).max() < 1.95 / 20_000**0.5


@pytest.mark.parametrize("n", [0, 1, 2, 60])
def test_equals_are_ordered_by_their_ids(n: int) -> None:
    rng = np.random.default_rng(n)
    ids, minor, major = sample_ids(n), rng.integers(0, 4, n), rng.integers(0, 3, n)
    expected = sorted(range(n), key=lambda i: (major[i], minor[i], ids[i]))
    assert ordered(ids, minor, major).tolist() == expected
