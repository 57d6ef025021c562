"""k-means groups of unit vectors, for methods that compare or choose samples within groups.

Notable choices:
- plain k-means on vectors of length 1, not the spherical kind: their squared Euclidean distances are twice
  their cosine distances, so that only the length of a centroid differs;
- the centroids are fitted to at most 256 samples each, drawn at random; more move them little and cost most.
  These samples are what stands in memory: all, where there are fewer than 256 for a group.
"""

from __future__ import annotations

import numpy as np

from scorers.selection.vectors import blocks
from scorers.signals.columns import Floats, Ints, Vectors

_SAMPLES_PER_CENTROID = 256


def kmeans(rows: Vectors, count: int, seed: int) -> tuple[Ints, Floats]:
    """(group, centroids): each row's group, (N,) from 0, and the groups' means, (count, D).

    rows: (N, D) of length 1. count >= 1 groups are looked for, at most N; some may end up empty, and the
    centroid of an empty one is NaN. The same rows in the same order and the same seed give the same groups.
    """
    n, width = rows.shape
    count = min(count, n)
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
    sums = np.zeros((count, width))
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group, minlength=count)
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    for g in np.flatnonzero(sizes):
        members = order[bounds[g] : bounds[g + 1]]
        for _, block in blocks(rows, members):
            sums[g] += block.sum(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return group, sums / sizes[:, None]
