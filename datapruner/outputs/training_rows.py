"""The rows of a subset as trainers take them: token ids, and which of them are trained on, in batches.

Every trainer's format is written from this one stream, so all of them train on the same tokens. A limit of
length is applied here, for trainers apply their own, each in its way, and some in silence.

Notable choices:
- a row over the limit is cut at its end by default: a token's loss depends on what stands before it alone, so
  what is left is trained on exactly as it was measured. Or such rows are left out whole;
- a row without a token to train on is left out: alone in a batch its loss is 0 / 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from datapruner.errors import UsageError
from datapruner.measuring.places import flatten
from datapruner.measuring.signal_cache import ProxyKey, SignalCache
from datapruner.rows.formats import TooLong
from datapruner.runs.published import Run
from scorers.models.sources import ALIASES, ModelSourceError, resolve

IGNORED = -100
"""The label of a token that is not trained on."""

_BATCH = 2048

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]


def offsets(lengths: ArrayLike) -> Int64s:
    """(N + 1,) where each of N parts of these lengths begins, and the end of the last."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """N rows of T tokens together, one row after another.

    lengths: (N,) tokens of each row. input_ids: (T,). labels: (T,) the token's id where it is trained on,
    else -100; unshifted, so that `labels[t]` is of `input_ids[t]`. token_weights: (T,) factors of each
    token's loss, 0 where it is not trained on; None where tokens are not weighted.
    """

    sample_ids: list[str]
    lengths: Int64s
    input_ids: Int32s
    labels: Int32s
    token_weights: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.sample_ids)

    @property
    def offsets(self) -> Int64s:
        """(N + 1,) where each row begins, and the end of the last."""
        return offsets(self.lengths)

    @property
    def trained(self) -> Int64s:
        """(N,) tokens of each row that are trained on."""
        owner = np.repeat(np.arange(len(self)), self.lengths)
        return np.bincount(owner[self.labels != IGNORED], minlength=len(self))

    def rows(self) -> Iterator[tuple[str, Int32s, Int32s, NDArray[np.float32] | None]]:
        """Sample id, input_ids, labels and, where tokens are weighted, weights of each row."""
        weights = self.token_weights
        for sample_id, (start, stop) in zip(self.sample_ids, pairwise(self.offsets.tolist()), strict=True):
            scale = None if weights is None else weights[start:stop]
            yield sample_id, self.input_ids[start:stop], self.labels[start:stop], scale

    def only(self, chosen: NDArray[np.bool_]) -> TrainingBatch:
        """The rows for which `chosen`, (N,), is true."""
        if chosen.all():
            return self
        kept = self._tokens(np.repeat(chosen, self.lengths))
        sample_ids = [each for each, stays in zip(self.sample_ids, chosen.tolist(), strict=True) if stays]
        return replace(kept, sample_ids=sample_ids, lengths=self.lengths[chosen])

    def cut(self, length: int) -> TrainingBatch:
        """The first `length` tokens of each row."""
        if not (self.lengths > length).any():
            return self
        place = np.arange(len(self.input_ids)) - np.repeat(self.offsets[:-1], self.lengths)
        return replace(self._tokens(place < length), lengths=np.minimum(self.lengths, length))

    def _tokens(self, chosen: NDArray[np.bool_]) -> TrainingBatch:
        weights = None if self.token_weights is None else self.token_weights[chosen]
        return replace(
            self, input_ids=self.input_ids[chosen], labels=self.labels[chosen], token_weights=weights
        )


@dataclass(slots=True)
class Counts:
    """What became of the rows of a subset: rows = written + too_long + untrained.

    Of those written, `cut` rows lost their ends. Tokens are of what was written, `trained_tokens` those of
    them that are trained on; `lost_tokens` would be trained on without the limit. `longest`: tokens of the
    longest row written. `weighted`: whether the loss of each token has a factor of its own.
    """

    rows: int = 0
    written: int = 0
    cut: int = 0
    too_long: int = 0
    untrained: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    lost_tokens: int = 0
    longest: int = 0
    weighted: bool = False


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """The rows of a subset, within a limit, to be read once.

    source: all of them. model: by what trainers load the one whose tokens they are. about: what the files
    say of themselves. `counts` are whole when all is read, but `counts.weighted`, which is known before.
    """

    source: Callable[[], Iterator[TrainingBatch]]
    model: str
    about: dict[str, Any]
    max_length: int | None = None
    too_long: TooLong = "cut"
    counts: Counts = field(default_factory=Counts)

    def __iter__(self) -> Iterator[TrainingBatch]:
        """Batches with at least one row each."""
        for batch in self.source():
            within = self._limited(batch)
            if len(within):
                yield within

    def shards(self, rows: int) -> Iterator[TrainingRows]:
        """The same in parts of `rows` rows, the last of what is left; each is to be read before the next."""
        for _, pieces in groupby(self._pieces(rows), key=itemgetter(0)):
            part = partial(map, itemgetter(1), pieces)
            yield replace(self, source=part, max_length=None, counts=Counts(weighted=self.counts.weighted))

    def _pieces(self, rows: int) -> Iterator[tuple[int, TrainingBatch]]:
        """Batches that lie within one shard each, and its number."""
        done = 0
        for batch in self:
            numbers = np.arange(done, done + len(batch)) // rows
            done += len(batch)
            for number in np.unique(numbers).tolist():
                yield number, batch.only(numbers == number)

    def _limited(self, batch: TrainingBatch) -> TrainingBatch:
        counts, trained = self.counts, int(batch.trained.sum())
        counts.rows += len(batch)
        cut = 0
        if self.max_length is not None:
            over = batch.lengths > self.max_length
            if self.too_long == "drop":
                counts.too_long += int(over.sum())
                batch, over = batch.only(~over), over[~over]
            batch = batch.cut(self.max_length)
            cut = int((over & (batch.trained > 0)).sum())
        has_any = batch.trained > 0
        counts.untrained += int((~has_any).sum())
        batch = batch.only(has_any)
        counts.cut += cut
        counts.written += len(batch)
        counts.tokens += len(batch.input_ids)
        left = int(batch.trained.sum())
        counts.trained_tokens += left
        counts.lost_tokens += trained - left
        counts.longest = max(counts.longest, int(batch.lengths.max(initial=0)))
        return batch


def of_run(run: Run, home: Path, *, max_length: int | None = None, too_long: TooLong = "cut") -> TrainingRows:
    """The kept rows of a run, in row order, as the model that measured them reads them.

    Raises UsageError as `check_run` does.
    """
    check_run(run)

    def source() -> Iterator[TrainingBatch]:
        kept = kept_rows(run)
        for _, batch, _ in kept_tokens(run, home, kept["row"], kept["sample_id"]):
            yield batch

    model = loadable(run.config.measuring.model, home)
    counts = Counts(weighted=has_weights(run))
    return TrainingRows(source, model, about_run(run), max_length, too_long, counts)


def check_run(run: Run) -> None:
    """Raise UsageError for a run that only scored, and for one that rewrote: its token ids are of the texts
    before."""
    if not run.config.has_subset:
        raise UsageError("this run scored and did not prune", remedy="use its scores, or prune")
    if run.config.rewrite is not None:
        raise UsageError(
            "this run rewrote reasoning, and has token ids of the texts before",
            remedy="export its rows with `messages`, which trainers tokenize: leave out --for",
        )


def loadable(model: str, home: Path) -> str:
    """What trainers load the model by: for what only we know, an alias or a GGUF file, its folder here."""
    if model in ALIASES or model.endswith(".gguf"):
        with suppress(ModelSourceError):  # not here any more
            return str(resolve(model, home, local_only=True).path)
    return model if Path(model).exists() else model.partition("@")[0]


def kept_rows(run: Run) -> pl.DataFrame:
    """The kept samples of a run, in row order: row and sample_id."""
    with duckdb.connect(str(run.database), read_only=True) as connection:
        found = connection.sql("SELECT row, sample_id FROM sample_scores WHERE keep ORDER BY row")
        kept = pl.from_arrow(found.to_arrow_table())
    assert isinstance(kept, pl.DataFrame), type(kept)
    return kept


def has_weights(run: Run) -> bool:
    """Whether the tokens that a run kept have weights."""
    with duckdb.connect(str(run.database), read_only=True) as connection:
        found = connection.execute("SELECT 1 FROM masks WHERE token_weight IS NOT NULL LIMIT 1").fetchone()
    return found is not None


def about_run(run: Run) -> dict[str, Any]:
    """What files say of the run that they are of."""
    return {"run": run.run_id, "config": run.config.model_dump(mode="json"), "lineage": run.lineage}


def kept_tokens(
    run: Run, home: Path, rows: pl.Series, sample_ids: pl.Series
) -> Iterator[tuple[slice, TrainingBatch, NDArray[np.bool_]]]:
    """Tokens of kept rows, ascending: which of `rows`, the batch, which tokens are of a response (T,)."""
    places = SignalCache(home, ProxyKey(**run.lineage["proxy"])).places(sample_ids)
    with duckdb.connect(str(run.database), read_only=True) as connection:
        for start in range(0, len(rows), _BATCH):
            part = slice(start, min(start + _BATCH, len(rows)))
            lists = places.part(part.start, part.stop).columns(["input_ids", "position"])
            connection.register("wanted", pl.DataFrame({"row": rows[part]}).to_arrow())
            found = connection.sql(
                "SELECT kept_tokens, token_weight FROM masks SEMI JOIN wanted USING (row) "
                "WHERE row BETWEEN $first AND $last ORDER BY row",
                params={"first": rows[part.start], "last": rows[part.stop - 1]},
            ).to_arrow_table()
            kept = pl.from_arrow(found)
            assert isinstance(kept, pl.DataFrame), type(kept)
            yield part, *_masked(sample_ids[part].to_list(), lists, kept)


def _masked(
    sample_ids: list[str], lists: pl.DataFrame, masks: pl.DataFrame
) -> tuple[TrainingBatch, NDArray[np.bool_]]:
    """Of token ids, response positions and masks: the batch, and which tokens are of a response."""
    kept_tokens = masks["kept_tokens"]
    lengths = lists["input_ids"].list.len().to_numpy().astype(np.int64)
    begins = np.cumsum(lengths) - lengths
    ids = flatten(lists["input_ids"]).astype(np.int32, copy=False)
    at = flatten(lists["position"]) + np.repeat(begins, lists["position"].list.len().to_numpy())
    kept = flatten(kept_tokens) + np.repeat(begins, kept_tokens.list.len().to_numpy())
    labels = np.full(len(ids), IGNORED, dtype=np.int32)
    labels[kept] = ids[kept]
    response = np.zeros(len(ids), dtype=np.bool_)
    response[at] = True
    if masks["token_weight"].null_count():
        return TrainingBatch(sample_ids, lengths, ids, labels), response
    weights = np.zeros(len(ids), dtype=np.float32)
    weights[kept] = flatten(masks["token_weight"])
    return TrainingBatch(sample_ids, lengths, ids, labels, weights), response
