"""What samples are compared with, one by one: unit vectors, each with whoever asks by it.

Notable choices:
- products are taken in double precision and rounded to single: what stands beside what in a matrix, which
  decides the last bits, then does not show, and samples with the same vector tie;
- some thousand samples meet some hundred queries at a time, never all of them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scorers.selection.vectors import ROWS_AT_ONCE, UnitVectors
from scorers.signals.columns import Floats, Ints

Cosines = NDArray[np.float32]

_QUERIES_AT_ONCE = 512
_NUMBERS = 1 << 23
"""Of cosines (rows, askers) held at once."""


@dataclass(frozen=True, slots=True)
class Queries:
    """Unit vectors (Q, D) fp64, and of each, (Q,), its asker: 0, 0, 1, ... ascending, none left out.

    An asker's cosine to a sample is the largest of its queries'.
    """

    vectors: Floats
    asker: Ints

    @property
    def askers(self) -> int:
        return int(self.asker[-1]) + 1

    def of(self, askers: Ints) -> Queries:
        """Those of these askers, ascending, who are then 0, 1, ..."""
        chosen = np.isin(self.asker, askers)
        return Queries(self.vectors[chosen], np.searchsorted(askers, self.asker[chosen]))

    def cosines(self, samples: UnitVectors, rows: Ints) -> Iterator[tuple[Ints, Cosines]]:
        """Some of these rows of `samples` at a time, in their order, with their cosines to askers (n, A)."""
        step = max(1, min(ROWS_AT_ONCE, _NUMBERS // self.askers))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            block = samples.exact(some)
            found = np.full((len(some), self.askers), -np.inf, dtype=np.float32)
            for low in range(0, len(self.vectors), _QUERIES_AT_ONCE):
                asker = self.asker[low : low + _QUERIES_AT_ONCE]
                product = (block @ self.vectors[low : low + _QUERIES_AT_ONCE].T).astype(np.float32)
                first = np.flatnonzero(np.diff(asker, prepend=-1))
                here = slice(int(asker[0]), int(asker[-1]) + 1)
                found[:, here] = np.maximum(found[:, here], np.maximum.reduceat(product, first, axis=1))
            yield some, found


def nearest(samples: UnitVectors, queries: Queries) -> tuple[Floats, Ints]:
    """Of each sample, (N,), the largest cosine to a query and which that is, the first of equals.

    Both in the order of the samples, not of their ids.
    """
    each = Queries(queries.vectors, np.arange(len(queries.vectors)))
    cosine, query = np.empty(samples.shape[0]), np.empty(samples.shape[0], dtype=np.int64)
    for rows, found in each.cosines(samples, np.arange(samples.shape[0])):
        best = found.argmax(axis=1)
        at = samples.order[rows]
        cosine[at], query[at] = found[np.arange(len(rows)), best], best
    return np.clip(cosine, -1, 1), query
