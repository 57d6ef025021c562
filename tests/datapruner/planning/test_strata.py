"""Totals of rows that were not all read, against those of all of them."""

from __future__ import annotations

import numpy as np
import pytest

from datapruner.planning.strata import Read, Stratum, clusters, drawn, strata, total
from scorers.signals.forward import token_batches

RNG = np.random.default_rng(5)
CHARACTERS = np.rint(RNG.lognormal(5, 1.2, 3000)).astype(np.int64) + 64
TOKENS = np.rint(CHARACTERS * RNG.uniform(0.2, 0.3, 3000))
ROWS = RNG.permutation(9000)[:3000]


def read(part: Stratum, some: Stratum) -> Read:
    tokens = dict(zip(ROWS.tolist(), TOKENS.tolist(), strict=True))
    values = np.array([tokens[row] for row in some.rows.tolist()])
    return Read(part.whole, some.sizes.astype(np.float64), values)


def test_strata_have_every_row_once_by_length_and_about_as_many_characters_each() -> None:
    parts = strata(ROWS, CHARACTERS, 8)
    assert sorted(row for part in parts for row in part.rows.tolist()) == sorted(ROWS.tolist())
    sizes = [size for part in parts for size in part.sizes.tolist()]
    assert sizes == sorted(CHARACTERS.tolist())
    wholes = np.array([part.whole for part in parts])
    assert len(parts) == 8
    assert np.abs(wholes / wholes.mean() - 1).max() < 0.05
    assert strata(ROWS[:0], CHARACTERS[:0], 8) == []


def test_neighbours_are_grouped_as_measuring_makes_batches_of_them() -> None:
    lengths = np.sort(RNG.integers(3, 400, 500))
    batches = token_batches(range(499, -1, -1), lengths.tolist(), 1024)
    found = clusters(Stratum(np.arange(500), lengths), 1024)
    assert [each.rows.tolist()[::-1] for each in found] == list(batches)
    alone = clusters(Stratum(np.arange(2), np.array([20, 30])), 10)
    assert [each.rows.tolist() for each in alone] == [[1], [0]]


def test_what_was_read_wholly_is_counted() -> None:
    parts = strata(ROWS, CHARACTERS, 8)
    found = total([read(part, part) for part in parts])
    assert found.exact
    assert found.value == pytest.approx(TOKENS.sum())


def test_the_interval_has_the_truth_nineteen_times_of_twenty() -> None:
    parts = strata(ROWS, CHARACTERS, 8)
    held, values = 0, []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        found = total([read(part, drawn(part, 12, rng)) for part in parts])
        held += found.holds(TOKENS.sum())
        values.append(found.value)
    assert 0.92 <= held / 400 <= 0.98
    assert np.mean(values) == pytest.approx(TOKENS.sum(), rel=0.002)


def test_the_variance_is_that_of_the_ratio_estimator_by_hand() -> None:
    """Two of four rows of 10 characters: 2 and 4 tokens, 3 +- 1 a row, half of the stratum unread."""
    found = total([Read(40.0, np.array([10.0, 10.0]), np.array([2.0, 4.0]))])
    assert found.value == 12
    deviation = (16 * 0.5 * 2 / 2) ** 0.5  # N^2 (1 - f) s^2 / m
    assert found.high - found.value == pytest.approx(12.7062 * deviation, rel=1e-4)  # t of one degree
    assert found.low == 0


def test_one_unit_of_several_says_nothing_of_its_spread() -> None:
    alone = total([Read(40.0, np.array([10.0]), np.array([3.0]))])
    assert (alone.low, alone.value, alone.high) == (0, 12, 24)
