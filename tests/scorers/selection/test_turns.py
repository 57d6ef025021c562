"""Taking turns against the double loop that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from scorers.selection.queries import Queries, nearest
from scorers.selection.turns import take_turns
from scorers.selection.vectors import UnitVectors
from scorers.signals.columns import Signals
from tests.signal_factory import sample_ids


def units(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def samples_of(vectors: NDArray[np.float64], seed: int = 0) -> Signals:
    n = len(vectors)
    return Signals(sample_ids(n, seed), {}, {}, np.arange(n + 1), {"v": vectors.astype(np.float32)})


def double_loop(
    signals: Signals, queries: Queries, groups: list[NDArray[np.int64]], budget: int
) -> list[tuple[int, int]]:
    """(sample, asker) turn by turn: whoever's turn it is looks at all that is left."""
    rows = units(signals.vectors["v"][np.arange(len(signals))].astype(np.float64))
    left = set(range(len(signals)))
    found: list[tuple[int, int]] = []
    round_ = 0
    while True:
        for group in groups:
            if len(found) == budget:
                return found
            asker = int(group[round_ % len(group)])
            asks = queries.vectors[queries.asker == asker]
            best = min(
                left, key=lambda s: (-max(float(np.float32(a @ rows[s])) for a in asks), signals.ids[s])
            )
            left.remove(best)
            found.append((best, asker))
        round_ += 1


def case(name: str) -> tuple[Signals, Queries, list[NDArray[np.int64]]]:
    rng = np.random.default_rng(5)
    vectors, asks = rng.normal(size=(60, 5)), units(rng.normal(size=(7, 5)))
    asker, groups = np.arange(7), [np.array([0, 1, 2]), np.array([3]), np.array([4, 5, 6])]
    if name == "askers that are alike":
        asks = units(asks[:1] + 1e-3 * asks)
    if name == "samples that tie":
        vectors = np.repeat(rng.normal(size=(6, 5)), 10, axis=0)
    if name == "askers of several queries":
        asker, groups = np.array([0, 0, 0, 1, 2, 2, 2]), [np.array([0]), np.array([1]), np.array([2])]
    return samples_of(vectors), Queries(asks, asker), groups


@pytest.mark.parametrize("entries", [1, 21, 70, None], ids=lambda e: f"lists of {e}")
@pytest.mark.parametrize(
    "name", ["random", "askers that are alike", "samples that tie", "askers of several queries"]
)
def test_turns_are_those_of_the_double_loop(name: str, entries: int | None) -> None:
    signals, queries, groups = case(name)
    for budget in (1, 23, 60):
        taken = take_turns(UnitVectors(signals, "v"), queries, groups, budget, entries=entries)
        expected = double_loop(signals, queries, groups, budget)
        assert list(zip(taken.samples.tolist(), taken.asker.tolist(), strict=True)) == expected


def test_the_cosine_is_that_of_the_sample_to_who_took_it() -> None:
    signals, queries, groups = case("random")
    taken = take_turns(UnitVectors(signals, "v"), queries, groups, 20)
    rows = units(signals.vectors["v"][taken.samples].astype(np.float64))
    assert taken.cosine == pytest.approx((rows * queries.vectors[taken.asker]).sum(axis=1), rel=1e-6)


def test_the_order_of_samples_changes_nothing() -> None:
    signals, queries, groups = case("samples that tie")
    order = np.random.default_rng(1).permutation(60)
    other = Signals(signals.ids[order], {}, {}, signals.offsets, {"v": signals.vectors["v"][order]})
    here, there = (take_turns(UnitVectors(s, "v"), queries, groups, 25) for s in (signals, other))
    assert signals.ids[here.samples].tolist() == other.ids[there.samples].tolist()


class Counted(UnitVectors):
    """Samples that count how often each was looked at."""

    looks = 0

    def exact(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        self.looks += len(rows)
        return super().exact(rows)


@pytest.mark.parametrize("alike", [False, True])
def test_samples_are_looked_at_seldom_although_lists_are_short(alike: bool) -> None:
    rng = np.random.default_rng(2)
    asks = units(rng.normal(size=(1, 8)) + (1e-6 if alike else 1) * rng.normal(size=(40, 8)))
    samples = Counted(samples_of(rng.normal(size=(400, 8))), "v")
    taken = take_turns(samples, Queries(asks, np.arange(40)), [np.arange(40)], 200, entries=4 * 400)
    assert len(set(taken.samples.tolist())) == 200
    assert samples.looks <= 400 * 6


def test_the_nearest_query_is_that_of_plain_python() -> None:
    signals, queries, _ = case("askers of several queries")
    rows = units(signals.vectors["v"][np.arange(60)].astype(np.float64))
    cosine, query = nearest(UnitVectors(signals, "v"), queries)
    for sample, row in enumerate(rows):
        to_each = [sum(a * b for a, b in zip(row, ask, strict=True)) for ask in queries.vectors]
        assert query[sample] == max(range(7), key=lambda q: to_each[q])
        assert cosine[sample] == pytest.approx(max(to_each), abs=1e-7)
