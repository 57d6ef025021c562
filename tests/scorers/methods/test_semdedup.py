"""SemDeDup against the pairwise loops of its definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import scorers.methods.semdedup
from scorers.method import Selection
from scorers.methods.semdedup import SemDeDup, SemDeDupOptions
from scorers.signals.columns import Signals
from tests.signal_factory import sample_ids


def with_vectors(vectors: Any, ids: Any = None) -> Signals:
    n = len(vectors)
    ids = sample_ids(n) if ids is None else ids
    return Signals(ids, {}, {}, np.arange(n + 1), {"mean_hidden": np.asarray(vectors, dtype=np.float32)})


def run(signals: Signals, share: float, options: SemDeDupOptions | None = None) -> Selection:
    options = options or SemDeDupOptions()
    return SemDeDup().select(signals, SemDeDup().scores(signals, options, 0), share, options, 0)


def near_copies(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of which each is one of n // 3 originals, slightly moved; and which original that is."""
    rng = np.random.default_rng(seed)
    original = rng.integers(0, n // 3, n)
    base = rng.standard_normal((n // 3, 16))
    return base[original] + 0.02 * rng.standard_normal((n, 16)), original


def slow_similarity(signals: Signals, group: np.ndarray, keep_from: str) -> list[float]:
    vectors = signals.vectors["mean_hidden"].astype(float)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = [-1.0] * len(unit)
    for g in set(group.tolist()):
        members = sorted(np.flatnonzero(group == g).tolist(), key=lambda i: signals.ids[i])
        centroid = unit[members].mean(axis=0)
        if keep_from != "random":
            sign = 1 if keep_from == "edge" else -1
            members.sort(key=lambda i: sign * float(unit[i] @ centroid))
        for place, i in enumerate(members):
            found[i] = max((float(unit[i] @ unit[j]) for j in members[:place]), default=-1.0)
    return found


@pytest.mark.parametrize("keep_from", ["edge", "centre", "random"])
@pytest.mark.parametrize("clusters", [1, 5])
def test_scores_are_the_largest_similarity_to_a_sample_taken_before(
    keep_from: Any, clusters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorers.methods.semdedup, "_BLOCK", 13)
    signals = with_vectors(near_copies(90)[0])
    scores = SemDeDup().scores(signals, SemDeDupOptions(clusters=clusters, keep_from=keep_from), 0)
    group = scores["cluster"].astype(int)
    assert len(set(group.tolist())) == clusters
    np.testing.assert_allclose(
        scores["semdedup"].astype(float), slow_similarity(signals, group, keep_from), atol=1e-6
    )


@pytest.mark.parametrize("keep_from", ["edge", "centre", "random"])
def test_a_huge_group_is_compared_in_runs_of_the_order_in_which_samples_are_taken(
    keep_from: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals, options = with_vectors(near_copies(90)[0]), SemDeDupOptions(clusters=1, keep_from=keep_from)
    exact = np.asarray(SemDeDup().scores(signals, options, 0)["semdedup"], dtype=float)
    monkeypatch.setattr(scorers.methods.semdedup, "_COMPARED", 30)
    runs = np.asarray(SemDeDup().scores(signals, options, 0)["semdedup"], dtype=float)
    assert (runs <= exact + 1e-6).all()  # less is compared, and what is, alike
    assert (runs == -1).sum() == 3
    if keep_from == "edge":  # copies stand beside each other but where a run ends
        assert (runs > 0.95).sum() >= 0.8 * (exact > 0.95).sum()


def test_one_of_each_set_of_near_copies_is_kept() -> None:
    vectors, original = near_copies(120, seed=2)
    signals = with_vectors(vectors)
    selection = run(signals, 1.0, SemDeDupOptions(epsilon=0.05, clusters=1))
    assert sorted(original[selection.keep].tolist()) == sorted(set(original.tolist()))
    assert selection.thresholds["semdedup"] < 0.95
    said = {selection.reasons[i] for i in selection.reason[~selection.keep]}
    assert said == {"SemDeDup: cosine over 0.95 to a sample taken before in their group"}


def test_the_kept_copy_is_the_one_farthest_from_the_centroid() -> None:
    angles = np.array([0.0, 0.1, 0.2, 2.0])
    signals = with_vectors(np.column_stack([np.cos(angles), np.sin(angles)]))
    options = {"epsilon": 0.05, "clusters": 1}
    assert run(signals, 1.0, SemDeDupOptions(**options)).keep.tolist() == [True, False, False, True]
    centre = run(signals, 1.0, SemDeDupOptions(**options, keep_from="centre")).keep.tolist()
    assert centre == [False, False, True, True]


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 1.0])
def test_a_share_keeps_exactly_as_many_and_says_which_epsilon_that_is(share: float) -> None:
    signals = with_vectors(near_copies(100, seed=4)[0])
    selection = run(signals, share)
    assert selection.keep.sum() == np.ceil(share * 100 - 1e-9)
    cut = selection.thresholds["semdedup"]
    if share < 1:
        as_epsilon = run(signals, 1.0, SemDeDupOptions(epsilon=1 - cut - 1e-9))
        assert np.array_equal(as_epsilon.keep, selection.keep)


def test_epsilon_goes_before_the_share() -> None:
    signals = with_vectors(near_copies(90, seed=5)[0])
    few = run(signals, 0.9, SemDeDupOptions(epsilon=0.05))
    assert few.keep.sum() < 81
    fewer = run(signals, 0.1, SemDeDupOptions(epsilon=0.05))
    assert fewer.keep.sum() == 9
    assert set(fewer.reason.tolist()) == {0, 1, 2}


def test_the_order_of_the_rows_changes_no_byte() -> None:
    vectors, ids = near_copies(300, seed=7)[0], sample_ids(300)
    order = np.random.default_rng(1).permutation(300)
    options = SemDeDupOptions(clusters=6)
    before, after = (
        SemDeDup().scores(with_vectors(vectors[rows], ids[rows]), options, 3)
        for rows in (np.arange(300), order)
    )
    for name in before:
        assert after[name].tobytes() == before[name][order].tobytes()


def test_no_samples_and_one_sample_are_kept() -> None:
    assert run(with_vectors(np.empty((0, 3))), 0.5).keep.shape == (0,)
    assert run(with_vectors([[1.0, 2.0, 3.0]]), 0.5).keep.tolist() == [True]
