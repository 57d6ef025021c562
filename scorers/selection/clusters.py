"""k-means groups of unit vectors, for methods that compare or choose samples within groups.

Notable choices:
- plain k-means on vectors of length 1, not the spherical kind: their squared Euclidean distances are twice
  their cosine distances, so that only the length of a centroid differs;
- the centroids are fitted to at most 256 samples each, drawn at random; more move them little and cost most.
  These samples are what stands in memory: all, where there are fewer than 256 for a group;
- more groups than 256 are found level by level: the samples are divided into the square root of as many, at
  most 256, and each of these into its part of them. Comparing every sample with every centroid would be
  quadratic work where the groups are to be of one size. A sample then goes to the nearest centroid of its
  first group, which need not be the nearest of all (figures in benchmarks/README.md).
"""

from __future__ import annotations

import math

import numpy as np

from scorers.selection.vectors import Some, blocks
from scorers.signals.columns import Floats, Ints, Vectors

_SAMPLES_PER_CENTROID = 256
_AT_ONCE = 256


def kmeans(rows: Vectors, count: int, seed: int) -> tuple[Ints, Floats]:
    """(group, centroids): each row's group, (N,) from 0, and the groups' means, (count, D).

    rows: (N, D) of length 1. count >= 1 groups are looked for, at most N; some may end up empty, and the
    centroid of an empty one is NaN. The same rows in the same order and the same seed give the same groups.
    """
    group = _grouped(rows, min(count, rows.shape[0]), seed)
    return group, _means(rows, group, min(count, rows.shape[0]))


def _grouped(rows: Vectors, count: int, seed: int) -> Ints:
    """The group of each row."""
    n = rows.shape[0]
    if count <= _AT_ONCE:
        return _nearest(rows, count, seed)
    first = min(math.isqrt(count), _AT_ONCE)
    wide = _nearest(rows, first, seed)
    sizes = np.bincount(wide, minlength=first)
    order, begins = np.argsort(wide, kind="stable"), np.cumsum(sizes) - sizes
    filled = np.flatnonzero(sizes)
    more = np.diff(np.cumsum(sizes[filled]) * (count - len(filled)) // n, prepend=0)
    group, number = np.empty(n, dtype=np.int64), 0
    for g, inside in zip(filled.tolist(), (1 + more).tolist(), strict=True):
        members = order[begins[g] : begins[g] + sizes[g]]
        # rows that are all alike come together, and would be as many groups again
        group[members] = number + _grouped(Some(rows, members), min(inside, max(1, count // 2)), seed)
        number += inside
    return group


def _nearest(rows: Vectors, count: int, seed: int) -> Ints:
    """The group of each row, whichever centroid is nearest."""
    n = rows.shape[0]
    group = np.zeros(n, dtype=np.int64)
    if count > 1:
        from sklearn.cluster import MiniBatchKMeans

        fitted = np.arange(n)
        if n > _SAMPLES_PER_CENTROID * count:
            rng = np.random.Generator(np.random.Philox(seed))
            fitted = np.sort(rng.permutation(n)[: _SAMPLES_PER_CENTROID * count])
        model = MiniBatchKMeans(
            n_clusters=count, random_state=seed % 2**32, batch_size=2048, max_iter=5, n_init=1
        )
        model.fit(rows[fitted])
        for at, block in blocks(rows):
            group[at] = model.predict(block)
    return group


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
