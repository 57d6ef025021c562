"""k-means groups of unit vectors, for methods that compare or choose samples within groups.

Notable choices:
- plain k-means on vectors of length 1, not the spherical kind: their squared Euclidean distances are twice
  their cosine distances, so that only the length of a centroid differs;
- the centroids are fitted to at most 256 samples each, drawn at random; more move them little and cost most.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scorers.selection.vectors import Vectors
from scorers.signals.columns import Ints

_SAMPLES_PER_CENTROID = 256


def kmeans(rows: Vectors, count: int, seed: int) -> tuple[Ints, NDArray[np.float64]]:
    """(group, centroids): each row's group, (N,) from 0, and the groups' means, (count, D).

    rows: (N, D) of length 1. count >= 1 groups are looked for, at most N; some may end up empty, and the
    centroid of an empty one is NaN. The same rows in the same order and the same seed give the same groups.
    """
    count = min(count, len(rows))
    if count <= 1:
        group = np.zeros(len(rows), dtype=np.int64)
    else:
        from sklearn.cluster import MiniBatchKMeans

        fitted = rows
        if len(rows) > _SAMPLES_PER_CENTROID * count:
            rng = np.random.Generator(np.random.Philox(seed))
            fitted = rows[np.sort(rng.permutation(len(rows))[: _SAMPLES_PER_CENTROID * count])]
        model = MiniBatchKMeans(
            n_clusters=count, random_state=seed % 2**32, batch_size=2048, max_iter=5, n_init=1
        )
        group = model.fit(fitted).predict(rows).astype(np.int64)
    sums = np.zeros((count, rows.shape[1]))
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group, minlength=count)
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    for g in np.flatnonzero(sizes):
        sums[g] = rows[order[bounds[g] : bounds[g + 1]]].sum(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return group, sums / sizes[:, None]
