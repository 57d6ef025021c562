"""Rows to train on or to read, as token ids with the tokens that count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """N rows of T tokens in all. Row i is `begins[i]:begins[i + 1]`; each ends with a token that counts, as
    what follows the last one has no effect on anything.

    ids: (T,). counts: (T,) whether the token is trained, or read. begins: (N + 1,).
    """

    ids: NDArray[np.int32]
    counts: Bools
    begins: Ints

    @classmethod
    def of(cls, ids: Sequence[NDArray[np.int32]], positions: Sequence[NDArray[np.int32]]) -> Examples:
        """Rows by their token ids and the positions, ascending, of those that count; at least one in each,
        and not the first token, which nothing predicts."""
        lengths = np.array([int(each[-1]) + 1 for each in positions], dtype=np.int64)
        begins = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        flat = np.empty(int(begins[-1]), dtype=np.int32)
        counts = np.zeros(len(flat), dtype=np.bool_)
        for row, (tokens, where) in enumerate(zip(ids, positions, strict=True)):
            flat[begins[row] : begins[row + 1]] = tokens[: lengths[row]]
            counts[begins[row] + where] = True
        return cls(flat, counts, begins)

    def __len__(self) -> int:
        return len(self.begins) - 1

    @property
    def lengths(self) -> Ints:
        """Of each row, its tokens."""
        return np.diff(self.begins)

    @property
    def counted(self) -> Ints:
        """Of each row, the tokens that count."""
        total = np.concatenate([[0], np.cumsum(self.counts)])
        found: Ints = np.diff(total[self.begins])
        return found

    def row(self, number: int) -> tuple[NDArray[np.int32], Ints]:
        """The token ids of a row, and the positions of those that count."""
        here = slice(self.begins[number], self.begins[number + 1])
        return self.ids[here], np.flatnonzero(self.counts[here])
