"""The samples of a corpus as a model reads them, and what of them is trained on or read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datapruner.corpora.corpus import Corpus
from datapruner.measuring.measure import Measurement
from datapruner.measuring.places import flatten
from datapruner.tuning.examples import Examples


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
    return split(column, np.int32)


def split(column: pl.Series, kind: type[np.generic]) -> list[Any]:
    """A column of lists of numbers, one array of this kind each."""
    ends = np.cumsum(column.list.len().to_numpy())
    return np.split(flatten(column).astype(kind), ends[:-1].astype(np.int64))
