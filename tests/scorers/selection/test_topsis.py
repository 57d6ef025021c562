"""TOPSIS against its textbook steps in plain Python, and the properties that it must have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scorers.selection.topsis import topsis


def slow_topsis(rows: list[list[float]], weights: list[float], directions: list[str]) -> list[float]:
    k = len(weights)
    norms = [math.hypot(*(row[j] for row in rows)) for j in range(k)]
    table = [[weights[j] * row[j] / norms[j] if norms[j] else 0.0 for j in range(k)] for row in rows]
    columns = [[row[j] for row in table] for j in range(k)]
    best = [max(c) if d == "high" else min(c) for c, d in zip(columns, directions, strict=True)]
    worst = [min(c) if d == "high" else max(c) for c, d in zip(columns, directions, strict=True)]
    closeness = []
    for row in table:
        plus, minus = math.dist(row, best), math.dist(row, worst)
        closeness.append(0.5 if plus + minus == 0 else minus / (plus + minus))
    return closeness


moderate = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6)
tables = st.tuples(st.integers(1, 12), st.integers(1, 4)).flatmap(
    lambda s: arrays(np.float64, s, elements=moderate)
)


@given(tables, st.data())
def test_closeness_equals_the_textbook(table: np.ndarray, data: st.DataObject) -> None:
    k = table.shape[1]
    weights = data.draw(st.lists(st.floats(0.01, 10), min_size=k, max_size=k))
    directions: Any = data.draw(st.lists(st.sampled_from(["high", "low"]), min_size=k, max_size=k))
    closeness = topsis(table, weights, directions)
    assert np.all((closeness >= 0) & (closeness <= 1))
    # constant columns leave distances of rounding size, of which the ratio means nothing
    assume(all(np.ptp(c) == 0 or np.ptp(c) > 1e-6 * np.abs(c).max() for c in table.T))
    assume(all(np.ptp(c) > 0 for c in table.T))
    np.testing.assert_allclose(
        closeness, slow_topsis(table.tolist(), weights, directions), rtol=1e-6, atol=1e-9
    )


@given(tables, st.sampled_from([2.0**-40, 0.5, 4.0, 2.0**60]), st.randoms(use_true_random=False))
def test_scaling_a_column_and_reordering_rows_change_nothing(
    table: np.ndarray, factor: float, random: Any
) -> None:
    k, n = table.shape[1], len(table)
    weights = [1.0] * k
    directions: Any = ["high"] * k
    before = topsis(table, weights, directions)
    order = np.array(random.sample(range(n), n))
    scaled = table.copy()
    scaled[:, 0] *= factor
    assert np.array_equal(topsis(scaled, weights, directions), before)
    assert np.array_equal(topsis(table[order], weights, directions), before[order])
    assert np.array_equal(topsis(table, [8.0] * k, directions), before)


@given(tables)
def test_reversing_every_direction_reverses_closeness(table: np.ndarray) -> None:
    k = table.shape[1]
    all_high: Any = ["high"] * k
    all_low: Any = ["low"] * k
    high, low = topsis(table, [1.0] * k, all_high), topsis(table, [1.0] * k, all_low)
    np.testing.assert_allclose(high + low, 1, rtol=1e-12)


def test_a_row_that_is_best_everywhere_has_closeness_one_and_the_worst_zero() -> None:
    table = np.array([[3.0, 0.1], [2.0, 0.2], [1.0, 0.3]])
    closeness = topsis(table, [0.5, 0.5], ["high", "low"])
    assert closeness[0] == 1
    assert closeness[2] == 0
    assert 0 < closeness[1] < 1


@pytest.mark.parametrize("table", [np.zeros((3, 2)), np.full((3, 2), 7.25), np.array([[1.0, -2.0]])])
def test_rows_that_are_all_alike_are_half_way(table: np.ndarray) -> None:
    assert topsis(table, [1, 1], ["high", "low"]).tolist() == [0.5] * len(table)


def test_an_all_zero_column_does_not_disturb_the_others() -> None:
    column = np.array([1.0, 5.0, 2.0])
    alone = topsis(column[:, None], [1], ["high"])
    both = topsis(np.column_stack((column, np.zeros(3))), [1, 9], ["high", "low"])
    np.testing.assert_allclose(both, alone, rtol=1e-14)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e307])
def test_extreme_columns_neither_overflow_nor_vanish(scale: float) -> None:
    column = np.array([1.0, 2.0, 4.0])[:, None]
    np.testing.assert_allclose(
        topsis(column * scale, [1], ["high"]), topsis(column, [1], ["high"]), rtol=1e-12
    )


def test_no_rows_have_no_closeness() -> None:
    assert topsis(np.empty((0, 2)), [1, 1], ["high", "low"]).shape == (0,)


@pytest.mark.parametrize(
    ("table", "weights", "directions", "message"),
    [
        (np.zeros(3), [1], ["high"], "not \\(samples, criteria\\)"),
        (np.zeros((3, 0)), [], [], "not \\(samples, criteria\\)"),
        (np.zeros((3, 2)), [1], ["high", "low"], "2 criteria, but 1 weights"),
        (np.zeros((3, 2)), [1, 1], ["high"], "and 1 directions"),
        (np.zeros((3, 2)), [1, 0], ["high", "low"], "weight 1 is 0"),
        (np.zeros((3, 2)), [math.nan, 1], ["high", "low"], "weight 0 is nan"),
        (np.zeros((3, 2)), [1, 1], ["high", "down"], "direction 1 is 'down'"),
        (np.array([[1, 2], [3, math.nan]]), [1, 1], ["high", "low"], "row 1, criterion 1 is nan"),
        (np.array([[1, math.inf]]), [1, 1], ["high", "low"], "row 0, criterion 1 is inf"),
    ],
)
def test_input_that_means_nothing_is_refused(
    table: np.ndarray, weights: list[float], directions: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        topsis(table, weights, directions)
