"""Rows to train on or to read, as token ids with the tokens that count, and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datapruner.corpora.corpus import Corpus
from datapruner.measuring.measure import Measurement
from datapruner.measuring.places import flatten

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


@dataclass(frozen=True, slots=True, eq=False)
class Tokenised:
    """The samples of a corpus as a model reads them.

    index: a line for each sample that is no copy and could be rendered, in row order: row, sample_id,
    n_tokens (its length), n_counted (response tokens). errors: by sample id, why another is not there.
    """

    index: pl.DataFrame
    errors: dict[str, str]
    measured: Measurement

    @classmethod
    def of(cls, corpus: Corpus, measured: Measurement) -> Tokenised:
        """The samples of `corpus`, which were `measured` or tokenised."""
        index = corpus.sample_index().filter(pl.col("duplicate_of").is_null()).select("row", "sample_id")
        index = index.filter(~pl.col("sample_id").is_in(list(measured.errors)))
        counts = measured.cache.columns(index["sample_id"].to_list(), ["n_tokens", "n_response_tokens"])
        return cls(
            index.with_columns(
                n_tokens=counts["n_tokens"].cast(pl.Int64),
                n_counted=counts["n_response_tokens"].cast(pl.Int64),
            ),
            dict(measured.errors),
            measured,
        )

    def tokens(self, ids: Sequence[str]) -> tuple[list[NDArray[np.int32]], list[NDArray[np.int32]]]:
        """Of each of these samples, in their order, the token ids and the positions of response tokens."""
        frame = self.measured.cache.columns(ids, ["input_ids", "position"])
        return lists(frame["input_ids"]), lists(frame["position"])

    def examples(self, ids: Sequence[str]) -> Examples:
        """These samples with all their response tokens."""
        return Examples.of(*self.tokens(ids))


def lists(column: pl.Series) -> list[NDArray[np.int32]]:
    """A column of lists of whole numbers, one array each."""
    ends = np.cumsum(column.list.len().to_numpy())
    return np.split(flatten(column).astype(np.int32), ends[:-1].astype(np.int64))
