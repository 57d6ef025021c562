"""k-means groups on data whose groups are known."""

from __future__ import annotations

import numpy as np
import pytest

from scorers.selection import clusters
from scorers.selection.clusters import kmeans


def directions(sizes: list[int], width: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors close to as many axes as there are sizes, shuffled, and which axis each is close to."""
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = np.eye(width)[group] + 0.05 * rng.standard_normal((len(group), width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), group


def test_well_separated_groups_are_found() -> None:
    rows, truth = directions([40, 60, 100, 30])
    found, centroids = kmeans(rows, 4, seed=1)
    assert len({(a, b) for a, b in zip(found.tolist(), truth.tolist(), strict=True)}) == 4
    for g in range(4):
        np.testing.assert_allclose(centroids[g], rows[found == g].astype(float).mean(axis=0), rtol=1e-12)


def test_centroids_fitted_to_a_part_of_the_rows_group_all_of_them() -> None:
    rows, truth = directions([900, 300, 600])
    found, _ = kmeans(rows, 3, seed=0)
    assert len(found) == 1800
    assert len({(a, b) for a, b in zip(found.tolist(), truth.tolist(), strict=True)}) == 3


def test_the_same_seed_gives_the_same_groups() -> None:
    rows, _ = directions([50, 50, 50], seed=3)
    one, again, other = (kmeans(rows, 7, seed)[0] for seed in (5, 5, 6 + 2**40))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_many_groups_are_found_in_two_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, truth = directions([30, 60, 90, 30, 60, 30], width=24)
    monkeypatch.setattr(clusters, "_AT_ONCE", 5)
    found, centroids = kmeans(rows, 30, seed=1)
    assert len(centroids) == 30
    assert set(found.tolist()) <= set(range(30))
    assert len(set(found.tolist())) > 15  # as in one level, some stay empty
    pairs = {(a, b) for a, b in zip(found.tolist(), truth.tolist(), strict=True)}
    assert len(pairs) == len(set(found.tolist()))  # no group is of two directions
    for g in set(found.tolist()):
        np.testing.assert_allclose(centroids[g], rows[found == g].astype(float).mean(axis=0), rtol=1e-12)
    again, _ = kmeans(rows, 30, seed=1)
    assert np.array_equal(found, again)


def test_two_levels_come_to_an_end_where_all_rows_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "_AT_ONCE", 5)
    found, _ = kmeans(np.repeat(directions([1])[0], 100, axis=0), 30, seed=0)
    assert found.shape == (100,)
    assert (found < 30).all()


@pytest.mark.parametrize(("n", "count"), [(0, 3), (1, 3), (5, 1), (3, 9)])
def test_few_rows_and_single_groups_are_grouped_too(n: int, count: int) -> None:
    rows, _ = directions([n])
    found, centroids = kmeans(rows, count, seed=0)
    assert found.shape == (n,)
    assert (found < max(1, min(n, count))).all()
    assert centroids.shape[1] == 12


def test_more_groups_than_different_rows_leave_some_empty() -> None:
    rows = np.repeat(directions([1, 1, 1])[0], 20, axis=0)
    found, centroids = kmeans(rows, 8, seed=0)
    assert len(set(found.tolist())) == 3
    assert np.isnan(centroids).all(axis=1).sum() == 5
