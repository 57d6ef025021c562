"""Subsets as files: the canonical Parquet with everything in it, and the plain rows as they came.

Canonical columns: the original ones, then `sample_id`, `row`, the scores, then what a trainer needs:
`input_ids`, `attention_mask`, `labels` (-100 where not trained on, unshifted) and `token_keep` (true kept,
false pruned, null not a response token). A pruned token stays in `input_ids`. Where an original column has
one of our names, ours is called `datapruner_<name>`. The schema's metadata has the run's configuration and
lineage under `datapruner`.

A run that rewrote reasoning has `messages` instead, the conversations to train on, as token ids and masks
are of the texts before, and what is said of each beside it. Which columns are called `original_<name>` there,
and in its plain rows, is said in `datapruner.rewriting.training`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from datapruner.corpus import Corpus
from datapruner.errors import UsageError
from datapruner.files import publishing
from datapruner.panics import contained
from datapruner.rewriting.training import TrainingRows
from datapruner.runs import Run
from datapruner.signal_cache import ProxyKey, SignalCache, flatten

_BATCH = 2048
_IGNORED = -100

OnRows = Callable[[int], None]


def _unheard(_: int) -> None:
    """Nobody listens."""


def canonical(run: Run, corpus: Corpus, home: Path) -> Iterator[pa.Table]:
    """The kept samples in row order, a few thousand at a time, all with one schema."""
    if run.config.rewrite is not None:
        yield from _rewritten(run, corpus)
        return
    cache = SignalCache(home, ProxyKey(**run.lineage["proxy"]))
    scores = kept_scores(run)
    with duckdb.connect(str(run.database), read_only=True) as connection:
        for start in range(0, len(scores), _BATCH):
            part = scores.slice(start, _BATCH)
            rows = part["row"].to_list()
            lists = cache.columns(part["sample_id"].to_list(), ["input_ids", "position"])
            kept = connection.sql(
                "SELECT row, kept_tokens FROM masks WHERE row BETWEEN $first AND $last ORDER BY row",
                params={"first": rows[0], "last": rows[-1]},
            ).to_arrow_table()
            original = pa.Table.from_batches(list(corpus.originals(rows, _BATCH)))
            ours = part.to_arrow().cast(_scores_schema(part))
            yield _beside(
                original, ours, _training_columns(lists, kept.column("kept_tokens")), _metadata(run)
            )


def _rewritten(run: Run, corpus: Corpus) -> Iterator[pa.Table]:
    """`canonical` of a run that rewrote."""
    scores, done = kept_scores(run), 0
    for batch in _training(run, corpus).batches():
        part = scores.slice(done, len(batch.rows))
        done += len(part)
        ours = part.to_arrow().cast(_scores_schema(part))
        about = {name: column for name, column in batch.about.items() if name not in ours.column_names}
        yield _beside(batch.original, ours, batch.trained | about, _metadata(run))


def _training(run: Run, corpus: Corpus) -> TrainingRows:
    """What to train on of a run that rewrote."""
    assert run.config.rewrite is not None, run.run_id
    return TrainingRows(run.database, corpus, kept_scores(run)["row"].to_list(), run.config.rewrite.pattern)


def with_what_is_said(training: TrainingRows) -> Iterator[pa.Table]:
    """Rewritten rows with what is said of each beside them, all with one schema."""
    for batch in training.batches():
        yield _before(batch.trained | batch.about, batch.original)


def _before(ours: dict[str, pa.Array], original: pa.Table) -> pa.Table:
    """Our columns, then the original ones, which have names of their own."""
    columns = [*ours.values(), *original.columns]
    return pa.table(columns, names=[*ours, *original.column_names])


def kept_scores(run: Run) -> pl.DataFrame:
    """sample_scores of the kept samples, in row order."""
    with duckdb.connect(str(run.database), read_only=True) as connection:
        table = connection.sql("SELECT * EXCLUDE (keep, status) FROM sample_scores WHERE keep ORDER BY row")
        frame = pl.from_arrow(table.to_arrow_table())
    assert isinstance(frame, pl.DataFrame), type(frame)
    return frame


def _scores_schema(scores: pl.DataFrame) -> pa.Schema:
    """Plain Arrow types: string, not string_view."""
    arrow = scores.to_arrow().schema
    return pa.schema(
        [
            pa.field(
                f.name,
                pa.string()
                if pa.types.is_large_string(f.type) or pa.types.is_string_view(f.type)
                else f.type,
            )
            for f in arrow
        ]
    )


def _training_columns(lists: pl.DataFrame, kept_tokens: pa.ChunkedArray) -> dict[str, pa.Array]:
    """input_ids, attention_mask, labels and token_keep, from ids, response positions and kept positions."""
    lengths = lists["input_ids"].list.len().to_numpy().astype(np.int64)
    begins = np.concatenate([[0], np.cumsum(lengths)])
    ids = flatten(lists["input_ids"])
    response = flatten(lists["position"]) + np.repeat(begins[:-1], lists["position"].list.len().to_numpy())
    kept_lists = kept_tokens.combine_chunks()
    kept = kept_lists.flatten().to_numpy() + np.repeat(begins[:-1], kept_lists.value_lengths().to_numpy())
    labels = np.full(len(ids), _IGNORED, dtype=np.int32)
    labels[kept] = ids[kept]
    flags = np.zeros(len(ids), dtype=np.bool_)
    flags[kept] = True
    outside = np.ones(len(ids), dtype=np.bool_)
    outside[response] = False
    offsets = pa.array(begins.astype(np.int32))
    return {
        name: pa.ListArray.from_arrays(offsets, values)
        for name, values in {
            "input_ids": pa.array(ids),
            "attention_mask": pa.array(np.ones(len(ids), dtype=np.int8)),
            "labels": pa.array(labels),
            "token_keep": pa.array(flags, mask=outside),
        }.items()
    }


def _beside(original: pa.Table, scores: pa.Table, training: dict[str, pa.Array], metadata: bytes) -> pa.Table:
    columns = dict(zip(original.column_names, original.columns, strict=True))
    for name, column in [*zip(scores.column_names, scores.columns, strict=True), *training.items()]:
        free = name
        while free in columns:
            free = f"datapruner_{free}"
        columns[free] = column
    return pa.table(columns).replace_schema_metadata({b"datapruner": metadata})


def _metadata(run: Run) -> bytes:
    document = {"run": run.run_id, "config": run.config.model_dump(mode="json"), "lineage": run.lineage}
    return json.dumps(document, sort_keys=True).encode()


def write_canonical(path: Path, run: Run, corpus: Corpus, home: Path, on_rows: OnRows = _unheard) -> int:
    """Write the canonical Parquet; the number of samples in it. Published by rename.

    `on_rows` is told now and then how many samples are written, and may raise to stop it.
    """
    return _publish(path, lambda file: _write_tables(file, canonical(run, corpus, home), on_rows))


def write_plain(path: Path, run: Run, corpus: Corpus, on_rows: OnRows = _unheard) -> int:
    """Write the kept rows alone, unchanged: Parquet, or JSON lines for a `.jsonl` name. Raises UsageError.

    Of a run that rewrote they are its `TrainingRows`. `on_rows` as for `write_canonical`.
    """
    if run.config.rewrite is not None:
        training = _training(run, corpus)
        parts = (_before(batch.trained, batch.original) for batch in training.batches())
        return _write_rewritten(path, parts, training.lines(), on_rows)
    rows = kept_scores(run)["row"].to_list()
    if path.suffix == ".jsonl":
        return _publish(path, lambda file: _write_lines(file, corpus.originals_json(rows, _BATCH), on_rows))
    _check_suffix(path, ".parquet", ".jsonl")
    parts = (pa.Table.from_batches([batch]) for batch in corpus.originals(rows, _BATCH))
    return _publish(path, lambda file: _write_tables(file, parts, on_rows))


def write_rewritten(path: Path, training: TrainingRows, about: Mapping[str, Any]) -> int:
    """Write rewritten rows with what is said of each: Parquet, with what made them, `about`, in its metadata,
    or JSON lines for a `.jsonl` name; how many. Raises UsageError."""
    metadata = {b"datapruner": json.dumps(about, sort_keys=True).encode()}
    parts = (table.replace_schema_metadata(metadata) for table in with_what_is_said(training))
    return _write_rewritten(path, parts, training.lines(about=True), _unheard)


def _write_rewritten(path: Path, parts: Iterator[pa.Table], lines: Iterator[bytes], on_rows: OnRows) -> int:
    if path.suffix == ".jsonl":
        return _publish(path, lambda file: _write_lines(file, lines, on_rows))
    _check_suffix(path, ".parquet", ".jsonl")
    return _publish(path, lambda file: _write_tables(file, parts, on_rows))


def write_scores(path: Path, scores: pl.DataFrame) -> int:
    """Write a score table as .parquet, .csv or .jsonl. Raises UsageError for another name."""
    _check_suffix(path, ".parquet", ".csv", ".jsonl")

    def write(file: BinaryIO) -> int:
        if path.suffix == ".parquet":
            scores.write_parquet(file)
        elif path.suffix == ".csv":
            scores.write_csv(file)
        else:
            scores.write_ndjson(file)
        return len(scores)

    return _publish(path, write)


def check_target(path: Path, *suffixes: str) -> None:
    """Find out before the work starts that `path` cannot be written. Raises UsageError."""
    _check_suffix(path, *suffixes)
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist", remedy="create it first")
    if path.is_dir():
        raise UsageError(f"{path} is a folder", remedy="name a file")


def _check_suffix(path: Path, *suffixes: str) -> None:
    if path.suffix not in suffixes:
        raise UsageError(
            f"{path}: cannot write {path.suffix or 'a file without a suffix'}",
            remedy=f"one of {', '.join(suffixes)}",
        )


def _write_tables(file: BinaryIO, parts: Iterator[pa.Table], on_rows: OnRows) -> int:
    first = next(parts)
    count = 0
    with pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
        for table in chain([first], parts):
            writer.write_table(table)
            count += table.num_rows
            on_rows(count)
    return count


def _write_lines(file: BinaryIO, lines: Iterator[bytes], on_rows: OnRows) -> int:
    count = 0
    for line in lines:
        file.write(line.rstrip(b"\n") + b"\n")
        count += 1
        if count % _BATCH == 0:
            on_rows(count)
    return count


@contained()
def _publish(path: Path, write: Callable[[BinaryIO], int]) -> int:
    try:
        with publishing(path) as file:
            return write(file)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror or error}", remedy="choose another place"
        ) from error
