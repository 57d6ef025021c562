"""k-means groups of unit vectors, for methods that compare or choose samples within groups.

Notable choices:
- plain k-means on vectors of length 1, not the spherical kind: their squared Euclidean distances are twice
  their cosine distances, so that only the length of a centroid differs;
- the centroids are fitted to at most 256 samples each, drawn at random; more move them little and cost most.
  These samples are what stands in memory: all, where there are fewer than 256 for a group;
- more groups than 256 are found level by level: the samples are divided into the square root of as many, at
  most 256, and each of these into its part of them. Comparing every sample with every centroid would be
  quadratic work where the groups are to be of one size. A sample then goes to the nearest centroid of those
  below the three that are nearest on each level, which need not be the nearest of all (figures in
  benchmarks/README.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scorers.selection.vectors import Rows, Some, blocks
from scorers.signals.columns import Floats, Ints, Vectors

if TYPE_CHECKING:
    from sklearn.cluster import MiniBatchKMeans

_SAMPLES_PER_CENTROID = 256
_AT_ONCE, _LOOKS = 256, 3


def kmeans(rows: Vectors, count: int, seed: int) -> tuple[Ints, Floats]:
    """(group, centroids): each row's group, (N,) from 0, and the groups' means, (count, D).

    rows: (N, D) of length 1. count >= 1 groups are looked for, at most N; some may end up empty, and the
    centroid of an empty one is NaN. The same rows in the same order and the same seed give the same groups.
    """
    group = _grouped(rows, min(count, rows.shape[0]), seed)
    return group, _means(rows, group, min(count, rows.shape[0]))


def _grouped(rows: Vectors, count: int, seed: int) -> Ints:
    """The group of each row."""
    group = np.zeros(rows.shape[0], dtype=np.int64)
    if count <= 1:
        return group
    if count <= _AT_ONCE:
        nearest = _fitted(rows, count, seed).predict
    else:
        drawn = _drawn(rows.shape[0], count, seed)
        nearest = _Level.of(Some(rows, drawn), min(count, len(drawn)), seed, 0).nearest
    for at, block in blocks(rows):
        group[at] = nearest(block)
    return group


def _fitted(rows: Vectors, count: int, seed: int) -> MiniBatchKMeans:
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(
        n_clusters=count, random_state=seed % 2**32, batch_size=2048, max_iter=5, n_init=1
    )
    return model.fit(rows[_drawn(rows.shape[0], count, seed)])


def _drawn(n: int, count: int, seed: int) -> Ints:
    """The rows, ascending, that so many centroids are fitted to."""
    if n <= _SAMPLES_PER_CENTROID * count:
        return np.arange(n)
    rng = np.random.Generator(np.random.Philox(seed))
    return np.sort(rng.permutation(n)[: _SAMPLES_PER_CENTROID * count])


@dataclass(frozen=True, slots=True)
class _Level:
    """centroids: (k, D). first: number of the first group below. below: the next level of each centroid that
    is no group itself; none where all are."""

    centroids: Rows
    first: int
    below: tuple[_Level, ...] = ()

    @classmethod
    def of(cls, rows: Vectors, count: int, seed: int, first: int) -> _Level:
        """Fit so many groups to the rows, at most one for each."""
        if count <= _AT_ONCE:
            return cls(_fitted(rows, count, seed).cluster_centers_, first)
        model = _fitted(rows, min(math.isqrt(count), _AT_ONCE), seed)
        group = np.concatenate([model.predict(block) for _, block in blocks(rows)])
        sizes = np.bincount(group, minlength=len(model.cluster_centers_))
        filled = np.flatnonzero(sizes)
        more = np.diff(np.cumsum(sizes[filled]) * (count - len(filled)) // len(group), prepend=0)
        below = []
        for g, inside in zip(filled.tolist(), (1 + more).tolist(), strict=True):
            members = Some(rows, np.flatnonzero(group == g))
            # rows that are all alike come together, and would be as many groups again
            below.append(cls.of(members, min(inside, int(sizes[g]), count // 2), seed, first))
            first += inside
        return cls(model.cluster_centers_[filled], below[0].first, tuple(below))

    def nearest(self, block: Rows) -> Ints:
        """The group of each row."""
        return self._nearest(block)[0]

    def _nearest(self, block: Rows) -> tuple[Ints, Rows]:
        """Also the squared distance to its centroid, but for the row's own square."""
        distance = (self.centroids * self.centroids).sum(axis=1) - 2 * (block @ self.centroids.T)
        best = distance.argmin(axis=1)
        rows = np.arange(len(block))
        if not self.below:
            return self.first + best, distance[rows, best]
        number, least = np.empty(len(block), dtype=np.int64), np.full(len(block), np.inf, dtype=np.float32)
        looks = min(_LOOKS, len(self.below))
        into = np.argpartition(distance, looks - 1, axis=1)[:, :looks] if looks < len(self.below) else None
        for g, level in enumerate(self.below):
            some = rows if into is None else np.flatnonzero((into == g).any(axis=1))
            if len(some):
                found, far = level._nearest(block[some])
                nearer = far < least[some]
                number[some[nearer]], least[some[nearer]] = found[nearer], far[nearer]
        return number, least


def _means(rows: Vectors, group: Ints, count: int) -> Floats:
    """(count, D): the mean of each group, NaN of an empty one."""
    sums = np.zeros((count, rows.shape[1]))
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group, minlength=count)
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    for g in np.flatnonzero(sizes):
        members = order[bounds[g] : bounds[g + 1]]
        for _, block in blocks(rows, members):
            sums[g] += block.sum(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return sums / sizes[:, None]
