"""Sample vectors as methods compare them: one unit row for each sample, in the order of the sample ids.

Notable choices:
- floating-point sums depend on what stands beside what in a matrix, so rows are ordered by id before any of
  them are multiplied; the samples then decide the result, and their order in the corpus does not;
- rows are made of the signal when they are taken: memory is that of the rows at work, not of all.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from scorers.signals.columns import Floats, Ints, Signals, Vectors

Rows = NDArray[np.float32]

ROWS_AT_ONCE = 8192


class UnitVectors:
    """The unit vectors of samples in the order of their ids, taken by their numbers in it.

    `order` (N,): the ids of samples `order` ascend; row i of (N, D) is the unit vector of sample order[i].

    zeros: whether a vector may be zero, and then stays so.

    Raises ValueError on creation, naming the sample, when the signal is missing, or a vector is not finite or
    is zero and must not be.
    """

    def __init__(self, signals: Signals, name: str, *, zeros: bool = False) -> None:
        if name not in signals.vectors:
            measured = ", ".join(sorted(signals.vectors)) or "none"
            raise ValueError(f"vector signal {name} was not measured; measured are {measured}")
        self._vectors = signals.vectors[name]
        self.order: Ints = np.argsort(signals.ids, kind="stable")
        signals.let_go()
        self._norms: Floats = np.empty(len(self.order))
        for at, exact in blocks(self._vectors, self.order):
            norms = np.linalg.norm(exact.astype(np.float64), axis=1)
            if not (usable := np.isfinite(norms) & (zeros | (norms > 0))).all():
                sample = self.order[at[np.argmin(usable)]]
                raise ValueError(
                    f"vector signal {name} of sample {signals.ids[sample]} is "
                    f"{'' if zeros else 'zero or '}not finite; "
                    "leave out samples that could not be measured before scoring"
                )
            self._norms[at] = np.where(norms > 0, norms, 1)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._vectors.shape

    def __getitem__(self, rows: Ints) -> Rows:
        found = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            found[start : start + ROWS_AT_ONCE] = self.exact(rows[start : start + ROWS_AT_ONCE])
        return found

    def exact(self, rows: Ints) -> Floats:
        """The same in double precision."""
        unit: Floats = self._vectors[self.order[rows]].astype(np.float64) / self._norms[rows, None]
        return unit


def blocks(vectors: Vectors, rows: Ints | None = None) -> Iterator[tuple[Ints, Rows]]:
    """Some numbers at a time, from 0 on, and the vectors of these numbers: of all, or of these `rows`."""
    count = vectors.shape[0] if rows is None else len(rows)
    for start in range(0, count, ROWS_AT_ONCE):
        at = np.arange(start, min(start + ROWS_AT_ONCE, count))
        yield at, vectors[at if rows is None else rows[at]]


class Some:
    """Some of the vectors, by their place among these members."""

    def __init__(self, vectors: Vectors, members: Ints) -> None:
        self._vectors, self._members = vectors, members

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._members), self._vectors.shape[1])

    def __getitem__(self, rows: Ints) -> Rows:
        return self._vectors[self._members[rows]]
