"""Rows to train on or to read, as token ids with the tokens that count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Weights = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """N rows of T tokens in all. Row i is `begins[i]:begins[i + 1]`; each ends with a token that counts, as
    what follows the last one has no effect on anything.

    ids: (T,). counts: (T,) whether the token is trained, or read. begins: (N + 1,). weights: (T,) the factor
    of each token's loss, which means something where it counts; None where all are alike.
    """

    ids: NDArray[np.int32]
    counts: Bools
    begins: Ints
    weights: Weights | None = None

    @classmethod
    def of(
        cls,
        ids: Sequence[NDArray[np.int32]],
        positions: Sequence[NDArray[np.integer]],
        weights: Sequence[Weights] | None = None,
    ) -> Examples:
        """Rows by their token ids and the positions, ascending, of those that count, with their weights; at
        least one in each, and not the first token, which nothing predicts."""
        lengths = np.array([int(each[-1]) + 1 for each in positions], dtype=np.int64)
        begins = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        flat = np.empty(int(begins[-1]), dtype=np.int32)
        counts = np.zeros(len(flat), dtype=np.bool_)
        for row, (tokens, where) in enumerate(zip(ids, positions, strict=True)):
            flat[begins[row] : begins[row + 1]] = tokens[: lengths[row]]
            counts[begins[row] + where] = True
        if weights is None:
            return cls(flat, counts, begins)
        scale = np.zeros(len(flat), dtype=np.float32)
        scale[counts] = np.concatenate(weights)
        return cls(flat, counts, begins, scale)

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

    def weights_of(self, number: int) -> Weights | None:
        """The weights of the tokens of a row that count."""
        here = slice(self.begins[number], self.begins[number + 1])
        return None if self.weights is None else self.weights[here][self.counts[here]]

    def row(self, number: int) -> tuple[NDArray[np.int32], Ints]:
        """The token ids of a row, and the positions of those that count."""
        here = slice(self.begins[number], self.begins[number + 1])
        return self.ids[here], np.flatnonzero(self.counts[here])
