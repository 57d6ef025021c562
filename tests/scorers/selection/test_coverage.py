"""Coverage-enhanced selection against plain Python with exact fractions, and its promise of exactly m."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scorers.selection.coverage import cover, coverage_selection, equal_width_bins
from scorers.selection.ranking import draws
from tests.signal_factory import sample_ids, sample_signals

finite = st.floats(allow_nan=False, allow_infinity=False)
awkward = st.one_of(
    st.lists(finite, min_size=1, max_size=40),
    st.lists(st.sampled_from([0.0, -0.0, 1.0, 1e-300, -1e308, 1e308, 5e-324]), min_size=1, max_size=40),
    st.integers(1, 40).map(lambda n: [3.5] * n),  # no range at all
    st.integers(1, 40).map(lambda n: [math.exp(i) for i in range(n)]),  # nearly all in the first bin
    st.integers(1, 40).map(lambda n: [float(i) for i in range(n)]),  # one to a bin
)


@st.composite
def tasks(draw: Any) -> dict[str, Any]:
    values = draw(awkward)
    return {
        "values": np.array(values),
        "count": draw(st.integers(0, len(values))),
        "hard_prune": draw(st.floats(0, 1, exclude_max=True)),
        "bins": draw(st.one_of(st.integers(1, 60), st.just(1_000_000))),
        "seed": draw(st.integers(0, 3)),
    }


@settings(max_examples=300)
@given(tasks())
@example({"values": np.array([7.0]), "count": 1, "hard_prune": 0.99, "bins": 1, "seed": 0})
@example({"values": np.arange(100.0), "count": 50, "hard_prune": 0.0, "bins": 7, "seed": 0})
@example({"values": np.arange(100.0), "count": 100, "hard_prune": 0.5, "bins": 50, "seed": 0})
def test_exactly_as_many_samples_as_asked_for_come_out(task: dict[str, Any]) -> None:
    values, count = task["values"], task["count"]
    n = len(values)
    chosen = cover(ids=sample_ids(n), **task)
    assert chosen.keep.sum() == count
    assert not (chosen.keep & chosen.cut).any()
    asked = math.floor(task["hard_prune"] * n + 1e-9)
    assert chosen.cut.sum() == min(asked, n - count)
    if chosen.cut.any() and not chosen.cut.all():
        assert values[chosen.cut].min() >= values[~chosen.cut].max()
    assert (chosen.bin[chosen.cut] == -1).all()
    inside = chosen.bin[~chosen.cut]
    assert ((inside >= 0) & (inside < task["bins"])).all()


@settings(max_examples=200)
@given(tasks())
def test_no_bin_gives_less_than_its_share_unless_it_is_emptied(task: dict[str, Any]) -> None:
    chosen = cover(ids=sample_ids(len(task["values"])), **task)
    taken = {b: int(chosen.keep[chosen.bin == b].sum()) for b in np.unique(chosen.bin[~chosen.cut])}
    sizes = {b: int((chosen.bin == b).sum()) for b in taken}
    partly = [taken[b] for b in taken if taken[b] < sizes[b]]
    # bins that were not emptied give the same number, but for what does not divide
    assert not partly or max(partly) - min(partly) <= 1
    assert all(taken[b] <= min(partly) + 1 for b in taken if partly)


def slow_cover(
    values: list[int], ids: list[str], count: int, cut: int, bins: int, drawn: list[float]
) -> set[str]:
    """The selection with sorted lists, and bin edges as exact fractions."""
    rows = sorted(range(len(values)), key=lambda i: (-values[i], ids[i]))[min(cut, len(values) - count) :]
    low, high = min(values[i] for i in rows), max(values[i] for i in rows)
    groups: list[list[int]] = [[] for _ in range(bins)]
    for row in rows:
        edges = [low + Fraction((high - low) * (i + 1), bins) for i in range(bins)]
        groups[next(i for i, edge in enumerate(edges) if values[row] <= edge)].append(row)
    groups = [group for group in groups if group]
    kept: set[str] = set()
    left = count
    while groups:
        smallest = min(groups, key=len)
        groups.remove(smallest)
        take = min(len(smallest), left // (len(groups) + 1))
        left -= take
        kept |= {ids[i] for i in sorted(smallest, key=lambda i: -drawn[i])[:take]}
    return kept


@settings(max_examples=200)
@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=40), st.integers(1, 60), st.data())
def test_the_samples_are_those_of_plain_python(values: list[int], bins: int, data: Any) -> None:
    n = len(values)
    count, cut = data.draw(st.integers(1, n)), data.draw(st.integers(0, n - 1))
    ids = sample_ids(n)
    chosen = cover(np.array(values, dtype=float), ids, count, hard_prune=cut / n, bins=bins, seed=5)
    expected = slow_cover(values, ids.tolist(), count, cut, bins, draws(ids, 5).tolist())
    assert set(ids[chosen.keep]) == expected


@given(tasks(), st.randoms(use_true_random=False))
def test_the_order_of_the_samples_changes_nothing(task: dict[str, Any], random: Any) -> None:
    n, ids = len(task["values"]), sample_ids(len(task["values"]))
    order = np.array(random.sample(range(n), n))
    chosen = cover(ids=ids, **task)
    moved = cover(ids=ids[order], **task | {"values": task["values"][order]})
    assert np.array_equal(moved.keep, chosen.keep[order])
    assert np.array_equal(moved.bin, chosen.bin[order])


def test_a_bin_has_its_upper_edge_and_the_first_one_both() -> None:
    assert equal_width_bins(np.array([0.0, 1, 2, 3, 4, 7, 28]), 28).tolist() == [0, 0, 1, 2, 3, 6, 27]
    assert equal_width_bins(np.array([]), 4).tolist() == []


def test_a_range_wider_than_a_float_is_divided_all_the_same() -> None:
    assert equal_width_bins(np.array([-1.7e308, 0.0, 1.7e308]), 4).tolist() == [0, 1, 3]


def test_rare_scores_are_kept_whole_and_common_ones_thinned() -> None:
    values = np.concatenate([np.zeros(900), [5.0, 5.1, 9.8, 9.9, 10.0]])
    chosen = cover(values, sample_ids(905), 105, hard_prune=0, bins=10, seed=0)
    assert chosen.keep[900:].all()
    assert chosen.keep[:900].sum() == 100


def test_another_seed_draws_other_samples_from_the_same_bins() -> None:
    values, ids = np.repeat(np.arange(10.0), 100), sample_ids(1000)
    first, second = (cover(values, ids, 100, hard_prune=0, bins=10, seed=seed) for seed in (1, 2))
    assert np.bincount(first.bin[first.keep]).tolist() == [10] * 10
    assert np.bincount(second.bin[second.keep]).tolist() == [10] * 10
    assert (first.keep & second.keep).sum() < 40


@pytest.mark.parametrize("hardest", ["high", "low"])
def test_every_sample_has_a_reason_and_the_report_its_thresholds(hardest: Any) -> None:
    values = np.arange(100.0) - 30
    signals = sample_signals(sample_ids(100), el2n=values)
    selection = coverage_selection(
        signals, values, 0.2, hardest=hardest, hard_prune=0.1, bins=9, seed=0, name="el2n"
    )
    assert selection.keep.sum() == 20
    reasons = [selection.reasons[i] for i in selection.reason]
    cut = [reason == f"el2n among the {hardest}est 10 %, cut before drawing" for reason in reasons]
    assert values[cut].tolist() == (list(range(60, 70)) if hardest == "high" else list(range(-30, -20)))
    drawn = [reason == "el2n: drawn from its score bin" for reason in reasons]
    assert np.array_equal(drawn, selection.keep)
    assert selection.thresholds == {
        "bins_used": 9.0,
        "bin_width": pytest.approx(89 / 9),
        "cut": 60.0 if hardest == "high" else -21.0,
    }
    assert selection.token_keep.all()


def test_no_samples_make_no_selection() -> None:
    signals = sample_signals(sample_ids(0), el2n=[])
    selection = coverage_selection(signals, np.array([]), 0.5, hard_prune=0.1, bins=5, seed=0, name="el2n")
    assert len(selection.keep) == 0
    assert selection.thresholds == {}
