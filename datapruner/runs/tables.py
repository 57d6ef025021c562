"""The tables of a run: one line per ingested row, one per kept sample's mask, one per response token.

In `run.duckdb`:

    sample_scores  every row of the input: scores, keep, reason, status
    masks          every kept sample whose text stays: its kept response tokens, as token indices and as
                   character spans, and the factors of their loss where tokens are weighted
    scored         every sample whose tokens are in token_scores: its row
    rewrites       every row that came to be rewritten (`datapruner.rewriting.tables`), in runs that do

In `token_scores.parquet`, which SQL has as a table of that name:

    token_scores   every scored sample's response tokens, ascending by row and position

`status` is kept, pruned, rejected or error, and scored where nothing was selected; they partition the input.
A run without methods has no tokens and no masks, and of scores no more than was measured to rewrite. Where no
model has read the samples, all that it would say of them is null.

Notable choices:
- tokens are most of a run: as Parquet they take a third of the time that DuckDB takes to compress them, and
  three quarters of the bytes;
- a chunk holds so many samples as have about two million tokens, and is made while the one before is written;
- lines of sample_scores are put together for some row groups at a time, as they are written;
- what DuckDB writes is one transaction, by one thread: each row group is compressed and written once.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datapruner.measuring.places import flatten
from datapruner.measuring.signal_cache import SignalCache, series
from datapruner.request.config import RunConfig
from datapruner.rows.sql_text import identifier, literal
from datapruner.runs.columns import COLUMNS, TOKEN_COLUMNS, sample_texts
from datapruner.runs.selection import Scored
from datapruner.system.space import needed
from scorers.method import Columns, Selection
from scorers.methods.ppl import perplexity
from scorers.signals.columns import Bools, Ints, Signals

_CHUNK_SAMPLES = 20_480
_CHUNK_TOKENS = 2_000_000
_VECTOR, _ROW_GROUP = 2_048, 20_480
"""Rows of a row group: a multiple of those of DuckDB's vectors, and the most."""
_GROUPS_AT_ONCE = 16
_TOKEN_GROUP = 1 << 19
"""Tokens of a row group: a sample is found by reading one or two of them."""
_NAMES = {"sample_id": pa.dictionary(pa.int32(), pa.string()), "row": pa.int64()}
_PARQUET: Mapping[str, Any] = {
    "compression": "zstd",
    "use_dictionary": list(_NAMES),
    "write_statistics": ["row"],
    "store_schema": False,  # the names are plain texts to whoever reads them
}
_MEMORY = "256MB"
SCALARS = frozenset({"nll", "entropy", "el2n", "head_grad_norm", "head_grad_dot"})
"""Sample signals that every result table shows, whatever the method."""

_PLACES = ("position", "turn", "char_start", "char_end", "is_end")
_LISTS = (*_PLACES, "nll", "entropy")
# Signals whose score column goes by the papers' name.
_PUBLIC = ("n_prompt_tokens", "n_response_tokens", "entropy", "el2n", "head_grad_norm", "head_grad_dot")

UNMEASURED = Signals(
    ids=np.empty(0, np.str_),
    samples={
        name: np.empty(0, np.int64 if name.startswith("n_") else np.float64) for name in {*_PUBLIC, *SCALARS}
    },
    tokens={},
    offsets=np.zeros(1, np.int64),
)
"""The signals of a run that measured none."""

_SUMMED = ("n_response_tokens", "n_kept_tokens", "n_truncated", "quadrant", "keep", "reason", "status")

_TYPES: Mapping[str, type[pl.DataType]] = {
    "real": pl.Float64,
    "whole": pl.Int64,
    "text": pl.String,
    "truth": pl.Boolean,
}
_TABLES = """
CREATE TABLE masks (sample_id VARCHAR, row BIGINT, kept_tokens INTEGER[],
                    kept_spans STRUCT(turn INTEGER, "start" INTEGER, "end" INTEGER)[], token_weight FLOAT[]);
CREATE TABLE scored (row BIGINT);
"""
_TOKEN_TYPES = {"real": pa.float32(), "whole": pa.int32(), "truth": pa.bool_()}


DROPPED, FAILED = "dropped by rewriting: ", "rewriting: "
"""What the reasons of rows begin with that rewriting took away."""

_FATES = {
    "rewritten": ("kept", "rewritten: "),
    "original": ("kept", "as it was: "),
    "dropped": ("pruned", DROPPED),
    "error": ("error", FAILED),
}


def needed_still(signals: Signals) -> Signals:
    """What the tables need of signals when scores and masks are made."""
    return replace(signals, vectors={}, others={})


def measured_columns(signals: Signals, truncated: NDArray[np.generic], scores: Columns) -> pl.DataFrame:
    """What is known of N measured samples: sample_id, counts, signals and these scores, one line each.
    Signals are there where a model has read the samples."""
    columns: dict[str, Any] = {"sample_id": series(signals.ids)}
    columns |= {name: signals.samples[name] for name in _PUBLIC if name in signals.samples}
    if "nll" in signals.samples:
        columns["ppl"] = perplexity(signals.samples["nll"].astype(np.float64))
    columns["n_truncated"] = truncated
    return pl.DataFrame(columns | dict(scores))


def scored_samples(
    measured: pl.DataFrame, selection: Selection | None, kept_tokens: Ints | None
) -> pl.DataFrame:
    """These lines of `measured_columns`, (N,), with what a selection makes of them; `kept_tokens` (N,) goes
    with one."""
    if selection is None:
        return measured.with_columns(
            n_kept_tokens=pl.lit(None, pl.Int64),
            keep=pl.lit(None, pl.Boolean),
            reason=pl.lit(None, pl.String),
            status=pl.lit("scored"),
        )
    reasons = pl.Series(selection.reasons, dtype=pl.String)
    reason = pl.lit(reasons.gather(pl.Series(selection.reason)))
    if selection.turn is not None:
        turn = pl.lit(pl.Series(selection.turn)).cast(pl.String)
        reason = reason.str.replace("{turn}", turn, literal=True)
    return measured.with_columns(
        n_kept_tokens=pl.Series(kept_tokens),
        keep=pl.Series(selection.keep),
        reason=reason,
        status=pl.Series(np.where(selection.keep, "kept", "pruned")),
    )


def rewritten_samples(measured: pl.DataFrame, outcomes: pl.DataFrame) -> pl.DataFrame:
    """Each sample that was to be rewritten, with what became of it and what was measured of it, if anything.

    measured: lines of `measured_columns`. outcomes: sample_id, status and reason in the table `rewrites`.
    Tokens of what is exported are not counted: that takes the chat template, and seconds to load it.
    """
    return (
        outcomes.select("sample_id", outcome="status", said="reason")
        .join(measured, on="sample_id", how="left", maintain_order="left")
        .with_columns(
            n_kept_tokens=pl.lit(None, pl.Int64),
            keep=pl.col("outcome").is_in(["rewritten", "original"]),
            reason=pl.format(
                "{}{}", pl.col("outcome").replace_strict({k: w for k, (_, w) in _FATES.items()}), "said"
            ),
            status=pl.col("outcome").replace_strict({k: status for k, (status, _) in _FATES.items()}),
        )
        .drop("outcome", "said")
    )


def sample_scores(
    index: pl.DataFrame,
    rejects: pl.DataFrame,
    errors: Mapping[str, str],
    judged: pl.DataFrame,
    config: RunConfig,
    *,
    left_out: Sequence[pl.DataFrame] = (),
    dropped: Mapping[str, str] = {},
) -> Iterator[pl.DataFrame]:
    """One line per ingested row, in row order; so many row groups at a time, one part at least.

    judged: of each sample that came to the end of the run, what was measured and what became of it
    (`scored_samples`, `rewritten_samples`). left_out: lines of `measured_columns` with the reason of
    each, of samples that went before. dropped: reasons, by sample id, of samples that were never measured.
    """
    frame = pl.concat([judged, _pruned(left_out, dropped)], how="diagonal_relaxed")
    failed = _by_id(errors, "failure")
    places = index.select("sample_id").join(
        frame.select("sample_id").with_row_index("place"), on="sample_id", how="left", maintain_order="left"
    )["place"]
    step = row_group(judged) * _GROUPS_AT_ONCE
    for start in range(0, max(len(index), 1), step):
        rows = index[start : start + step]
        known = frame[places[start : start + step].drop_nulls().unique(maintain_order=True)]
        after, row = index[start + step : start + step + 1]["row"], pl.col("row")
        refused = rejects.filter(row >= rows["row"][0]) if start else rejects
        yield _lines(rows, refused.filter(row < after[0]) if len(after) else refused, failed, known, config)


def _lines(
    index: pl.DataFrame, rejects: pl.DataFrame, failed: pl.DataFrame, frame: pl.DataFrame, config: RunConfig
) -> pl.DataFrame:
    """The lines of these rows of the index and these rejects, by what is known of their samples."""
    rows = index.select("row", "sample_id", "duplicate_of").join(frame, on="sample_id", how="left")
    rows = rows.join(failed, on="sample_id", how="left")
    is_copy = pl.lit(not config.keeps_copies) & pl.col("duplicate_of").is_not_null()
    has_failed = pl.col("failure").is_not_null()
    gone = pl.lit(False if config.has_subset else None, pl.Boolean)
    copy = pl.format("exact duplicate of row {}", "duplicate_of")
    rows = rows.with_columns(
        keep=pl.when(has_failed | is_copy).then(gone).otherwise("keep"),
        reason=pl.when(has_failed).then("failure").when(is_copy).then(copy).otherwise("reason"),
        status=pl.when(has_failed)
        .then(pl.lit("error"))
        .when(is_copy & config.has_subset)
        .then(pl.lit("pruned"))
        .otherwise("status"),
    )
    if config.has_subset:
        rows = rows.with_columns(n_kept_tokens=pl.when("keep").then("n_kept_tokens").otherwise(0))
    why = pl.concat_str(pl.col("reason"), pl.format(" ({})", "remedy").fill_null(""))
    refused = rejects.select(
        "row",
        n_kept_tokens=pl.lit(0 if config.has_subset else None, pl.Int64),
        reason=why,
        status=pl.lit("rejected"),
        keep=gone,
    )
    table = pl.concat([rows.drop("duplicate_of", "failure"), refused], how="diagonal").sort("row")
    absent = [
        pl.lit(None, _TYPES[column.kind]).alias(name)
        for name, column in COLUMNS.items()
        if name not in table.columns
    ]
    last = ("keep", "reason", "status")
    others = [name for name in table.columns if name not in COLUMNS]
    return table.with_columns(absent).select(*(n for n in COLUMNS if n not in last), *others, *last)


def _pruned(left_out: Sequence[pl.DataFrame], dropped: Mapping[str, str]) -> pl.DataFrame:
    """The samples that went before the selection."""
    frames = [_by_id(dropped, "reason"), *left_out]
    return pl.concat(frames, how="diagonal").with_columns(
        n_kept_tokens=pl.lit(0, pl.Int64), keep=pl.lit(False), status=pl.lit("pruned")
    )


def _by_id(texts: Mapping[str, str], name: str) -> pl.DataFrame:
    return pl.DataFrame(
        {"sample_id": list(texts), name: list(texts.values())},
        schema={"sample_id": pl.String, name: pl.String},
    )


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some n samples and their m response tokens. rows: (n,). tokens: the lines of token_scores, (m,). masks:
    of the kept samples among them; None where nothing was selected."""

    rows: Ints
    tokens: pa.Table
    masks: pl.DataFrame | None


def masks(
    signals: Signals,
    keep: Bools,
    token_keep: Bools,
    places: pl.DataFrame,
    rows: Ints,
    token_weight: NDArray[np.float32] | None = None,
) -> pl.DataFrame:
    """Masks of the kept samples among these: sample_id, row, kept_tokens, kept_spans, token_weight.

    keep (n,), token_keep (m,), rows (n,), token_weight (m,) and `places`, (m,) lines with position, turn,
    char_start and char_end, describe the same n samples with m response tokens in all. `kept_tokens` are
    indices into input_ids, and `token_weight` goes with them; `kept_spans` merges neighbouring tokens into
    (turn, start, end) character ranges of the turn's content, ascending and apart. A character that several
    tokens spell is kept with any of them.
    """
    flat = {name: places[name].to_numpy() for name in ("position", "turn", "char_start", "char_end")}
    owner = np.repeat(np.arange(len(signals)), signals.lengths)
    taken = np.flatnonzero(token_keep & keep[owner])
    spans = taken[flat["char_end"][taken] > flat["char_start"][taken]]
    same = (owner[spans[1:]] == owner[spans[:-1]]) & (flat["turn"][spans[1:]] == flat["turn"][spans[:-1]])
    touching = flat["char_start"][spans[1:]] <= flat["char_end"][spans[:-1]]
    joined = same & (touching | (np.diff(spans) == 1))
    first = np.flatnonzero(np.concatenate([[True], ~joined])) if len(spans) else np.empty(0, np.int64)
    last = np.append(first[1:], len(spans)) - 1 if len(spans) else first
    begin, end = spans[first], spans[last]
    parts = pl.DataFrame(
        {
            "turn": flat["turn"][begin],
            "start": flat["char_start"][begin],
            "end": flat["char_end"][end],
        }
    )
    found = pl.DataFrame(
        {
            "sample_id": signals.ids[keep],
            "row": rows[keep],
            "kept_tokens": _group(pl.Series(flat["position"][taken]), owner[taken], keep),
            "kept_spans": _group(parts.to_struct(), owner[begin], keep),
        }
    )
    if token_weight is None:
        return found.with_columns(token_weight=pl.lit(None, pl.List(pl.Float32)))
    return found.with_columns(token_weight=_group(pl.Series(token_weight[taken]), owner[taken], keep))


def _group(values: pl.Series, owner: Ints, keep: Bools) -> pl.Series:
    """`values` as one list per kept sample; `owner` is ascending."""
    counts = np.bincount(owner, minlength=len(keep))[keep]
    offsets = pl.Series(np.concatenate([[0], np.cumsum(counts)]), dtype=pl.Int64)
    series = pl.from_arrow(pa.LargeListArray.from_arrays(offsets.to_arrow(), values.to_arrow()))
    assert isinstance(series, pl.Series), type(series)
    return series


def token_schema(scored: Scored) -> pa.Schema:
    """The columns of token_scores: those of every run, then those that methods from outside add."""
    types = {name: _TOKEN_TYPES[column.kind] for name, column in TOKEN_COLUMNS.items() if name not in _NAMES}
    more = dict.fromkeys((name for name in scored.tokens(slice(0, 0)) if name not in types), pa.float32())
    return pa.schema([*_NAMES.items(), *types.items(), *more.items()])


def token_scores(
    cache: SignalCache, signals: Signals, scored: Scored, rows: Ints, *, rewritten: Collection[str] = ()
) -> Iterator[Chunk]:
    """The tokens and masks of these samples, in the order of `signals`; `rows` are theirs, (N,).

    Samples that were `rewritten` have no mask, nor tokens that are kept: they would be of the text before.
    """
    selection, schema = scored.selection, token_schema(scored)
    names = _LISTS if cache.key.has_signals else _PLACES
    known = [name for name in names if name in signals.tokens]
    unknown = [name for name in names if name not in known]
    places = cache.places(series(signals.ids))
    for start, stop in _chunks(signals.offsets):
        low, high = int(signals.offsets[start]), int(signals.offsets[stop])
        part = Signals(signals.ids[start:stop], {}, {}, signals.offsets[start : stop + 1] - low)
        lists = places.part(start, stop).columns(unknown)
        found = {name: pl.Series(flatten(lists[name])) for name in unknown}
        found |= {name: pl.Series(signals.tokens[name][low:high]) for name in known}
        found |= {name: pl.Series(column) for name, column in scored.tokens(slice(start, stop)).items()}
        owner = np.repeat(np.arange(len(part), dtype=np.int32), part.lengths)
        mask = None
        if selection is not None:
            keep, token_keep = selection.keep[start:stop], selection.token_keep[low:high]
            found["keep"] = pl.Series(token_keep & keep[owner])
            weights = selection.token_weight
            weight = None if weights is None else weights(slice(low, high))
            if weight is not None:
                found["token_weight"] = pl.Series(np.where(found["keep"], weight, np.float32(0)))
            as_measured = keep
            if rewritten:
                as_measured = keep & ~np.isin(part.ids, list(rewritten))
                told = pl.Series((as_measured | ~keep)[owner])
                found["keep"] = pl.select(pl.when(told).then(found["keep"])).to_series()
            mask = masks(part, as_measured, token_keep, pl.DataFrame(found), rows[start:stop], weight)
        columns = {name: series.to_arrow() for name, series in found.items()}
        columns["row"] = pl.Series(rows[start:stop][owner]).to_arrow()
        columns["sample_id"] = pa.DictionaryArray.from_arrays(
            pl.Series(owner).to_arrow(), pl.Series(part.ids).to_arrow().cast(pa.string())
        )
        absent = {name: pa.nulls(high - low) for name in schema.names if name not in columns}
        tokens = [(columns | absent)[field.name].cast(field.type) for field in schema]
        yield Chunk(rows[start:stop], pa.Table.from_arrays(tokens, schema=schema), mask)
        signals.let_go()


def _chunks(offsets: Ints) -> Iterator[tuple[int, int]]:
    """From which sample to before which each chunk goes; of (N,) samples, whose tokens lie at `offsets`."""
    start, n = 0, len(offsets) - 1
    while start < n:
        most = int(np.searchsorted(offsets, offsets[start] + _CHUNK_TOKENS, side="right")) - 1
        stop = min(max(most, start + 1), start + _CHUNK_SAMPLES, n)
        yield start, stop
        start = stop


def write(
    database: Path,
    tokens: Path,
    scores: Iterator[pl.DataFrame],
    row_group: int,
    schema: pa.Schema,
    chunks: Iterator[Chunk],
) -> pl.DataFrame:
    """Build the files of a run: in that of DuckDB at `database` none of these tables must be. What a report
    sums up of the scores' parts comes back (`_SUMMED`).

    `schema` is that of the chunks' tokens. Raises NoSpaceError.
    """
    spill = database.with_name(f"{database.name}.spill")
    try:
        with (
            needed("the run"),
            duckdb.connect() as connection,
            pq.ParquetWriter(tokens, schema, **_PARQUET) as file,
            ThreadPoolExecutor(1) as thread,
        ):
            connection.execute("SET threads = 1")
            connection.execute(f"SET memory_limit = '{_MEMORY}'")
            connection.execute(f"SET temp_directory = {literal(spill)}")
            connection.execute(f"ATTACH {literal(database)} AS run (ROW_GROUP_SIZE {row_group})")
            connection.execute("USE run")
            connection.execute("BEGIN")
            summed = [_write_scores(connection, part, at) for at, part in enumerate(scores)]
            connection.execute(_TABLES)
            written: Future[None] | None = None
            for chunk in chunks:
                if written is not None:
                    written.result()
                written = thread.submit(_write_chunk, connection, file, chunk)
            if written is not None:
                written.result()
            connection.execute("COMMIT")
            connection.execute("USE memory")
            connection.execute("DETACH run")
        return pl.concat(summed)
    finally:
        shutil.rmtree(spill, ignore_errors=True)


def row_group(judged: pl.DataFrame) -> int:
    """Rows of a row group: about as many tokens as a chunk has."""
    mean = judged["n_response_tokens"].cast(pl.Float64).mean()
    rows = _CHUNK_TOKENS / max(float(mean) if isinstance(mean, float) else 0.0, 1.0)
    return int(min(max(rows // _VECTOR, 1), _ROW_GROUP // _VECTOR)) * _VECTOR


def _write_scores(connection: duckdb.DuckDBPyConnection, scores: pl.DataFrame, at: int) -> pl.DataFrame:
    """Write a part, by its number, and give what is summed up of it."""
    incoming = scores.to_arrow()  # noqa: F841 (DuckDB finds it by its name)
    if at:
        connection.execute("INSERT INTO sample_scores BY NAME FROM incoming")
    else:
        connection.execute("CREATE TABLE sample_scores AS FROM incoming")
        for name, description in sample_texts(scores.columns).items():
            column = f"sample_scores.{identifier(name)}"
            connection.execute(f"COMMENT ON COLUMN {column} IS {literal(description)}")
    return scores.select(name for name in _SUMMED if name in scores.columns)


def _write_chunk(connection: duckdb.DuckDBPyConnection, file: pq.ParquetWriter, chunk: Chunk) -> None:
    file.write_table(chunk.tokens, row_group_size=_TOKEN_GROUP)
    rows = pl.DataFrame({"row": chunk.rows})
    for target, frame in (("scored", rows), ("masks", chunk.masks)):
        if frame is not None:
            incoming = frame.to_arrow()  # noqa: F841
            connection.execute(f"INSERT INTO {target} BY NAME FROM incoming").fetchall()
