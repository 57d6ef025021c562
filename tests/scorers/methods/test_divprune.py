"""DivPrune against the greedy loop over the whole distance matrix, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scorers.methods.divprune
from scorers.method import Selection
from scorers.methods.divprune import DivPrune, DivPruneOptions, farthest_first, most_isolated, outermost
from scorers.signals.columns import Signals
from tests.signal_factory import sample_ids


def with_vectors(vectors: Any, ids: Any = None, name: str = "mean_hidden") -> Signals:
    n = len(vectors)
    ids = sample_ids(n) if ids is None else ids
    return Signals(ids, {}, {}, np.arange(n + 1), {name: np.asarray(vectors, dtype=np.float32)})


def run(signals: Signals, share: float, options: DivPruneOptions | None = None, seed: int = 0) -> Selection:
    options = options or DivPruneOptions()
    return DivPrune().select(signals, DivPrune().scores(signals, options, seed), share, options, seed)


def blobs(n: int, width: int, seed: int) -> np.ndarray:
    """Clustered directions with a common offset, as hidden states have."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, n // 40), width))
    return centres[rng.integers(0, len(centres), n)] + 0.5 * rng.standard_normal((n, width)) + 0.3


def slow_distances(vectors: Any) -> np.ndarray:
    exact = np.asarray(vectors, dtype=np.float32).astype(np.float64)
    unit = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    return 1 - unit @ unit.T


def slow_picks(distance: np.ndarray, count: int, first: int) -> list[int]:
    picks = [first]
    while len(picks) < count:
        rest = [i for i in range(len(distance)) if i not in picks]
        picks.append(max(rest, key=lambda i: min(distance[i, p] for p in picks)))
    return picks


def slow_first(distance: np.ndarray) -> int:
    others = distance + np.diag(np.full(len(distance), np.inf))
    return int(np.argmax(others.min(axis=1)))


def in_id_order(signals: Signals) -> np.ndarray:
    return signals.vectors["mean_hidden"][np.argsort(signals.ids)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("block", [4, 512])
def test_the_picks_are_those_of_the_greedy_loop(
    share: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorers.methods.divprune, "_BLOCK", block)
    monkeypatch.setattr(scorers.methods.divprune, "_PICKS_AT_ONCE", 7)
    signals = with_vectors(blobs(120, 16, seed=3))
    distance = slow_distances(in_id_order(signals))
    count = max(1, round(share * 120 + 0.4))
    picks = slow_picks(distance, count, slow_first(distance))
    selection = run(signals, share)
    ordered_ids = np.sort(signals.ids)
    place = selection.columns["divprune_pick"]
    assert signals.ids[np.argsort(place)[-count:]].tolist() == ordered_ids[picks].tolist()
    assert selection.keep.tolist() == (place >= 0).tolist()
    far = [2.0] + [min(distance[p, q] for q in picks[:i]) for i, p in enumerate(picks) if i]
    found = selection.columns["divprune_distance"][np.argsort(place)[-count:]]
    np.testing.assert_allclose(found.astype(float), far, atol=1e-6)
    assert selection.thresholds["divprune_distance"] == pytest.approx(min(far), abs=1e-6)
    assert np.isnan(selection.columns["divprune_distance"][~selection.keep].astype(float)).all()


def test_a_thousand_samples_in_many_dimensions_are_picked_as_the_loop_picks_them() -> None:
    vectors = blobs(1500, 96, seed=1).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    distance = slow_distances(vectors)
    first = slow_first(distance)
    assert most_isolated(vectors) == first
    picks, far = farthest_first(vectors, 300, first)
    # the same up to pairs that differ by rounding: each pick is as far out as any other sample was
    nearest = distance[first].copy()
    for pick, shown in zip(picks[1:].tolist(), far[1:].tolist(), strict=True):
        assert nearest[pick] >= nearest.max() - 1e-6
        assert shown == pytest.approx(nearest[pick], abs=1e-6)
        nearest = np.minimum(nearest, distance[pick])
        nearest[pick] = 0
    assert len(set(picks.tolist())) == 300


# Coordinates of which every product is exact in float32, so that equal distances are equal to the last bit.
AXES = np.array(
    [sign * np.eye(4)[i] for i in range(4) for sign in (1, -1)]
    + [np.array(signs) / 2 for signs in ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (-1, 1, 1, 1))]
)


@settings(max_examples=150)
@given(st.lists(st.integers(0, len(AXES) - 1), min_size=1, max_size=40), st.data())
def test_ties_go_to_the_smaller_id_whatever_the_block_and_the_order(
    chosen: list[int], data: st.DataObject
) -> None:
    n = len(chosen)
    count = data.draw(st.integers(1, n))
    vectors = AXES[chosen].astype(np.float32)
    distance = slow_distances(vectors)
    first = slow_first(distance)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorers.methods.divprune, "_BLOCK", data.draw(st.integers(1, 12)))
        patch.setattr(scorers.methods.divprune, "_PICKS_AT_ONCE", 3)
        assert most_isolated(vectors) == first
        picks, _ = farthest_first(vectors, count, first)
        assert picks.tolist() == slow_picks(distance, count, first)
        ids = np.array(data.draw(st.permutations(sample_ids(n).tolist())), dtype=np.str_)
        order = np.array(data.draw(st.permutations(range(n))), dtype=np.int64)
        before, after = (
            run(with_vectors(vectors, ids), count / n),
            run(with_vectors(vectors[order], ids[order]), count / n),
        )
    assert np.array_equal(after.keep, before.keep[order])
    assert np.array_equal(after.columns["divprune_pick"], before.columns["divprune_pick"][order])


def test_the_order_of_the_rows_changes_no_byte() -> None:
    vectors, ids = blobs(700, 48, seed=8), sample_ids(700)
    order = np.random.default_rng(0).permutation(700)
    for options in (DivPruneOptions(), DivPruneOptions(parts=3, first="outermost")):
        before, after = (
            run(with_vectors(vectors[rows], ids[rows]), 0.2, options) for rows in (np.arange(700), order)
        )
        assert np.array_equal(after.keep, before.keep[order])
        for name in before.columns:
            assert after.columns[name].tobytes() == before.columns[name][order].tobytes()


def test_the_samples_of_a_smaller_share_are_among_those_of_a_larger_one() -> None:
    signals = with_vectors(blobs(300, 8, seed=2))
    few, many = run(signals, 0.1), run(signals, 0.4)
    assert not (few.keep & ~many.keep).any()
    assert few.thresholds["divprune_distance"] > many.thresholds["divprune_distance"]


def test_copies_are_left_out_while_anything_else_is_left() -> None:
    different = blobs(30, 8, seed=5)
    signals = with_vectors(np.concatenate([different] * 4))
    kept = signals.vectors["mean_hidden"][run(signals, 0.25).keep]
    assert len(np.unique(kept, axis=0)) == 30


def test_the_kept_are_farther_apart_than_a_random_draw() -> None:
    vectors = blobs(1000, 24, seed=9)
    selection = run(with_vectors(vectors), 0.05)
    distance = slow_distances(vectors)
    drawn = np.random.default_rng(1).permutation(1000)[:50]

    def closest(rows: np.ndarray) -> float:
        among = distance[np.ix_(rows, rows)]
        return float(among[~np.eye(len(rows), dtype=bool)].min())

    assert closest(np.flatnonzero(selection.keep)) > 3 * closest(drawn)


def test_an_outermost_start_is_the_sample_least_like_the_mean() -> None:
    vectors = np.array([[1, 0], [1, 0.1], [1, -0.2], [0, 1]], dtype=np.float32)
    assert outermost(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) == 3
    selection = run(with_vectors(vectors), 0.25, DivPruneOptions(first="outermost"))
    assert selection.keep.tolist() == [False, False, False, True]


@pytest.mark.parametrize(("n", "parts", "share"), [(100, 7, 0.33), (10, 20, 0.5), (5, 5, 0.2), (1, 3, 1.0)])
def test_parts_keep_exactly_the_count(n: int, parts: int, share: float) -> None:
    signals = with_vectors(blobs(n, 6, seed=4))
    selection = run(signals, share, DivPruneOptions(parts=parts))
    assert selection.keep.sum() == max(1, np.ceil(share * n - 1e-9))
    assert (
        selection.thresholds["divprune_distance"]
        == selection.columns["divprune_distance"][selection.keep].min()
    )


def far_apart(clusters: int, each: int, width: int = 24) -> np.ndarray:
    """Clusters on axes of their own, of different widths: no sample of one is near one of another."""
    rng = np.random.default_rng(7)
    spread = np.repeat(np.linspace(0.02, 0.3, clusters), each)[:, None]
    return np.repeat(np.eye(width)[:clusters], each, axis=0) + spread * rng.random((clusters * each, width))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_of_the_picks_of_all_parts_those_farthest_from_the_ones_before_them_count(share: float) -> None:
    vectors, picked = far_apart(4, 60), list[tuple[float, int]]()
    distance = slow_distances(vectors)
    for part in np.arange(240).reshape(4, 60):  # samples of one cluster are far from all others
        inside = distance[np.ix_(part, part)]
        picks = slow_picks(inside, 60, slow_first(inside))
        picked += [(2.0, int(part[picks[0]]))]
        picked += [(inside[p, picks[:at]].min(), int(part[p])) for at, p in enumerate(picks) if at]
    count = round(share * 240)
    selection = run(with_vectors(vectors), share, DivPruneOptions(parts=4))
    assert set(np.flatnonzero(selection.keep)) == {p for _, p in sorted(picked, reverse=True)[:count]}


def test_more_samples_than_are_compared_at_once_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    signals = with_vectors(blobs(200, 6, seed=5))
    whole, parts = (run(signals, 0.5, DivPruneOptions(parts=parts)).keep.tolist() for parts in (1, 10))
    assert run(signals, 0.5).keep.tolist() == whole != parts
    for name, value in (("_EXACT", 199), ("_PICKS_OF_PART", 10), ("_ROWS_OF_PART", 60)):
        monkeypatch.setattr(scorers.methods.divprune, name, value)
    assert run(signals, 0.5).keep.tolist() == parts
    assert run(signals, 0.5, DivPruneOptions(parts=1)).keep.tolist() == whole


def test_what_parts_cost_is_bounded_and_far_less_than_a_random_draw_costs() -> None:
    vectors = blobs(600, 8, seed=2)
    signals = with_vectors(vectors)
    distance = slow_distances(vectors)
    exact, parts, random = (
        distance[:, keep].min(axis=1).max()
        for keep in (
            run(signals, 0.25, DivPruneOptions(parts=1)).keep,
            run(signals, 0.25, DivPruneOptions(parts=6)).keep,
            np.random.default_rng(0).permutation(600) < 150,
        )
    )
    assert parts <= 1.35 * exact
    assert random > 2 * parts


def test_a_part_far_larger_than_others_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counted(rows: Any, count: int, first: int) -> Any:
        seen.append(len(rows))
        return farthest_first(rows, count, first)

    monkeypatch.setattr(scorers.methods.divprune, "farthest_first", counted)
    vectors = np.concatenate([far_apart(1, 580), far_apart(20, 1)])
    assert run(with_vectors(vectors), 0.2, DivPruneOptions(parts=20)).keep.sum() == 120
    assert max(seen) <= 4 * 30


def test_no_samples_give_no_picks() -> None:
    selection = run(with_vectors(np.empty((0, 4))), 0.5)
    assert selection.keep.shape == selection.columns["divprune_pick"].shape == (0,)
    assert selection.thresholds == {}


@pytest.mark.parametrize("bad", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_a_vector_without_a_direction_is_named(bad: list[float]) -> None:
    signals = with_vectors([[1.0, 0.0], bad])
    with pytest.raises(ValueError, match=f"mean_hidden of sample {signals.ids[1]} is zero or not finite"):
        run(signals, 0.5)


def test_a_missing_embedding_is_named() -> None:
    signals = with_vectors([[1.0, 0.0]])
    with pytest.raises(ValueError, match="sentence_embedding was not measured; measured are mean_hidden"):
        run(signals, 0.5, DivPruneOptions(embedding="sentence_embedding"))
    assert DivPrune().needs(DivPruneOptions(embedding="sentence_embedding")) == {"sentence_embedding"}
