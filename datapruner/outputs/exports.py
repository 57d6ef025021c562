"""Subsets: the canonical columns with everything in them, and the plain rows as they came (`rows.row_files`).

Canonical columns: the original ones, then `sample_id`, `row`, the scores, then what a trainer needs:
`input_ids`, `attention_mask`, `labels` (-100 where not trained on, unshifted) and `token_keep` (true kept,
false pruned, null not a response token); of a run that weights tokens `token_weight` besides, the factor of
each one's loss, 0 where not trained on. A pruned token stays in `input_ids`. An original column with one of
our names, or with one by which trainers find token ids and labels (`rows.set_aside`), is called
`original_<name>`. The schema's metadata has the run's configuration and lineage under `datapruner`, and there
under `renamed` what such columns are called.

A run that rewrote reasoning has `messages` instead, the conversations to train on, as token ids and masks
are of the texts before, and what is said of each beside it. Which columns are called `original_<name>` there,
and in its plain rows, is said in `datapruner.rewriting.training`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from datapruner.corpora.corpus import Corpus
from datapruner.errors import UsageError
from datapruner.outputs import training_rows
from datapruner.outputs.training_rows import IGNORED, TrainingBatch
from datapruner.rewriting.training import ABOUT, RewrittenRows
from datapruner.rows import json_form
from datapruner.rows.json_text import spliced
from datapruner.rows.row_files import plain_table
from datapruner.rows.set_aside import TOKEN_COLUMNS, has_name, renamed, renamed_keys
from datapruner.rows.writable import Rows
from datapruner.runs.columns import MEASURED, OF_METHODS
from datapruner.runs.published import Run

if TYPE_CHECKING:
    import datasets

_BATCH = 2048


def canonical(run: Run, corpus: Corpus, home: Path) -> Rows:
    """The kept samples in row order with everything that there is."""
    if run.config.rewrite is not None:
        return _rewritten(run, corpus)

    scores = kept_scores(run)
    ours = {*scores.columns, "input_ids", "attention_mask", "labels", "token_keep", "token_weight"}
    came = corpus.original_names()
    names = renamed(came, [name for name in came if has_name(name, ours | TOKEN_COLUMNS)], ours)
    moved = {name: now for name, now in names.items() if name != now}

    def tables() -> Iterator[pa.Table]:
        for rows, columns in _ours(run, home, scores):
            original = pa.Table.from_batches(list(corpus.originals(rows, _BATCH)))
            original = original.rename_columns([names[name] for name in original.column_names])
            yield _beside(original, columns).replace_schema_metadata(_metadata(run, moved))

    def lines() -> Iterator[bytes]:
        for rows, columns in _ours(run, home, scores):
            batch = columns.combine_chunks().to_batches()[0]
            originals = corpus.originals_json(rows, _BATCH)
            if moved:
                originals = (renamed_keys(line, moved) for line in originals)
            both = zip(originals, json_form.lines(batch, run.run_id), strict=True)
            yield from (spliced(*each) for each in both)

    return Rows(tables, lines, lambda: next(tables()).column_names)


def _ours(run: Run, home: Path, scores: pl.DataFrame) -> Iterator[tuple[list[int], pa.Table]]:
    """Some kept rows, and the columns of ours that go with them."""
    for part, batch, response in training_rows.kept_tokens(run, home, scores["row"], scores["sample_id"]):
        ours = scores[part]
        yield ours["row"].to_list(), _beside(plain_table(ours), pa.table(_training_columns(batch, response)))


def _rewritten(run: Run, corpus: Corpus) -> Rows:
    """`canonical` of a run that rewrote."""
    training, scores = _training(run, corpus), kept_scores(run)
    more = scores.select(name for name in scores.columns if name not in ("row", "sample_id", *ABOUT))
    moved = {name: now for name, now in training.names.items() if name != now}

    def tables() -> Iterator[pa.Table]:
        done = 0
        for batch in training.batches():
            part = scores.slice(done, len(batch.rows))
            done += len(part)
            ours = plain_table(part)
            about = {name: column for name, column in batch.about.items() if name not in ours.column_names}
            table = _beside(_beside(batch.original, ours), pa.table(batch.trained | about))
            yield table.replace_schema_metadata(_metadata(run, moved))

    def lines() -> Iterator[bytes]:
        ours = Rows.of(more.to_arrow(), run.run_id)
        both = zip(training.lines(about=True), ours.lines(), strict=True)
        return (spliced(*each) for each in both)

    return Rows(tables, lines, lambda: next(tables()).column_names)


def _training(run: Run, corpus: Corpus) -> RewrittenRows:
    """What to train on of a run that rewrote."""
    assert run.config.rewrite is not None, run.run_id
    scores = kept_scores(run)
    rows, pattern = scores["row"].to_list(), run.config.rewrite.pattern
    return RewrittenRows(run.database, corpus, rows, pattern, scores.columns)


def rewritten_rows(training: RewrittenRows) -> Rows:
    """Rewritten rows, with nothing of ours but what to train on."""

    def tables() -> Iterator[pa.Table]:
        for batch in training.batches():
            names = [*batch.trained, *batch.original.column_names]
            yield pa.table([*batch.trained.values(), *batch.original.columns], names=names)

    return Rows(tables, training.lines, lambda: next(tables()).column_names)


def as_dataset(rows: Rows) -> datasets.Dataset:
    """The rows in memory. Raises UsageError when a column's type has no place in a dataset."""
    import datasets  # a second of imports that only this needs

    try:
        return datasets.Dataset(pa.concat_tables(rows.tables()))
    except (ValueError, pa.ArrowException) as error:
        raise UsageError(
            f"the rows cannot be a dataset: {error}", remedy="export them to a file, or cast the column"
        ) from error


def kept_scores(run: Run) -> pl.DataFrame:
    """sample_scores of the kept samples, in row order, without columns that no method set."""
    with duckdb.connect(str(run.database), read_only=True) as connection:
        table = connection.sql("SELECT * EXCLUDE (keep, status) FROM sample_scores WHERE keep ORDER BY row")
        frame = pl.from_arrow(table.to_arrow_table())
    assert isinstance(frame, pl.DataFrame), type(frame)
    return _set(frame)


def _set(scores: pl.DataFrame) -> pl.DataFrame:
    """The scores without columns that no method set, nor any measuring."""
    unset = OF_METHODS if scores["ppl"].count() else OF_METHODS | {*MEASURED, "n_kept_tokens"}
    return scores.drop(
        name for name in unset if name in scores.columns and scores[name].null_count() == len(scores)
    )


def _training_columns(batch: TrainingBatch, response: NDArray[np.bool_]) -> dict[str, pa.Array]:
    """input_ids, attention_mask, labels, token_keep and, where there are weights, token_weight; `response`
    says which tokens are of one, (T,)."""
    tokens = pl.DataFrame({"input_ids": batch.input_ids, "labels": batch.labels, "inside": response})
    tokens = tokens.select(
        "input_ids",
        pl.lit(1, pl.Int8).alias("attention_mask"),
        "labels",
        pl.when("inside").then(pl.col("labels") != IGNORED).alias("token_keep"),
    )
    if batch.token_weights is not None:
        tokens = tokens.with_columns(token_weight=batch.token_weights)
    offsets = pl.Series(batch.offsets.astype(np.int32)).to_arrow()
    return {each.name: pa.ListArray.from_arrays(offsets, each.to_arrow()) for each in tokens}


def _beside(table: pa.Table, ours: pa.Table) -> pa.Table:
    """The table with our columns after its own."""
    return pa.table([*table.columns, *ours.columns], names=[*table.column_names, *ours.column_names])


def _metadata(run: Run, moved: Mapping[str, str]) -> dict[bytes, bytes]:
    document = training_rows.about_run(run) | ({"renamed": dict(moved)} if moved else {})
    return {b"datapruner": json.dumps(document, sort_keys=True).encode()}


def plain(run: Run, corpus: Corpus) -> Rows:
    """The kept rows alone, unchanged; of a run that rewrote, its `RewrittenRows`."""
    if run.config.rewrite is not None:
        return rewritten_rows(_training(run, corpus))
    return corpus.original_rows(kept_scores(run)["row"].to_list())


def scores_of(scores: pl.DataFrame) -> Rows:
    """A table of scores, without columns that no method set."""
    scores = _set(scores)
    return Rows.of(plain_table(scores), "scores")
