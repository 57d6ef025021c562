"""Two published runs side by side: which samples each keeps, and how alike their scores rank.

Notable choices:
- everything is asked of the runs' DuckDB files where they lie; memory is bounded by two columns of numbers;
- samples are compared by their id, so runs over different versions of a dataset can be, and of exact copies
  the first row alone counts;
- where nothing was pruned every scored sample counts as kept, as it does in a report;
- scores of the same name are correlated, and besides each run's own score with the other's, so that two
  methods can be told apart: a score is a method's own when it ranks by it (`selection.Scored.own`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import polars as pl

from datapruner.rows.sql_text import identifier, literal
from datapruner.runs.columns import COUNTS
from datapruner.runs.correlation import spearman
from datapruner.schemas.runs import Comparison, MeanTokens, OwnCorrelation, ScoreCorrelation

_MEMORY = "512MB"
_NUMBERS = ("DOUBLE", "FLOAT", "BIGINT", "INTEGER", "UBIGINT", "UINTEGER", "SMALLINT", "TINYINT")
_NO_SCORES = COUNTS | {"row"}
_OWN = 8
"""Most own scores of a run that are compared: a run that scores may have fifty methods."""

_PAIRS = """
CREATE TEMP TABLE pairs AS
SELECT a.row AS first_row, b.row AS second_row, a.kept AS first_kept, b.kept AS second_kept,
       a.tokens AS first_tokens, b.tokens AS second_tokens
FROM ({first}) a JOIN ({second}) b USING (sample_id)
"""
_SAMPLES = """
SELECT sample_id, min(row) AS row, bool_or(status IN ('kept', 'scored')) AS kept,
       max(n_response_tokens) AS tokens
FROM {run}.sample_scores WHERE sample_id IS NOT NULL GROUP BY sample_id
"""
_COUNTS = """
SELECT count(*),
       count(*) FILTER (first_kept AND second_kept),
       count(*) FILTER (first_kept AND NOT second_kept),
       count(*) FILTER (NOT first_kept AND second_kept),
       count(*) FILTER (NOT first_kept AND NOT second_kept)
FROM pairs
"""
_MEANS = "SELECT avg({run}_tokens) FILTER ({run}_kept), avg({run}_tokens) FROM pairs"
_VALUES = """
CREATE TEMP TABLE scores AS
SELECT {columns}
FROM pairs
JOIN {first}.sample_scores a ON a.row = first_row
JOIN {second}.sample_scores b ON b.row = second_row
"""
_BOTH = """
SELECT {first}::DOUBLE AS first, {second}::DOUBLE AS second
FROM scores WHERE NOT isnan(first) AND NOT isnan(second)
"""


@dataclass(frozen=True, slots=True)
class Compared:
    """A run to compare. run: its id. database: its DuckDB file. own: the names of its own scores."""

    run: str
    database: Path
    own: Sequence[str] = ()


def compare(first: Compared, second: Compared) -> Comparison:
    """What two runs make of the samples that both know; samples without a number in either are left out of a
    correlation."""
    with paired(first, second) as (connection, names):
        common, both, only_first, only_second, neither = connection.execute(_COUNTS).fetchall()[0]
        kept = both + only_first + only_second
        lengths = [connection.execute(_MEANS.format(run=run)).fetchall()[0] for run in ("first", "second")]
        tokens = [None if None in means else MeanTokens(kept=means[0], all=means[1]) for means in lengths]
        columns, others = (score_names(connection, name) for name in names)
        own = [
            [column for column in each.own if column in known][:_OWN]
            for each, known in ((first, columns), (second, others))
        ]
        shared = [column for column in columns if column in others]
        wanted = dict.fromkeys([*shared, *own[0]]), dict.fromkeys([*shared, *own[1]])
        selected = [
            f"{table}.{identifier(column)} AS {identifier(f'{side}_{column}')}"
            for table, side, each in zip("ab", ("first", "second"), wanted, strict=True)
            for column in each
        ]
        if selected:
            columns_text = ", ".join(selected)
            connection.execute(_VALUES.format(columns=columns_text, first=names[0], second=names[1]))
        return Comparison(
            first=first.run,
            second=second.run,
            common_samples=common,
            kept_by_both=both,
            kept_by_first_only=only_first,
            kept_by_second_only=only_second,
            kept_by_neither=neither,
            kept_by_both_at_random=(both + only_first) * (both + only_second) / common if common else 0.0,
            jaccard=both / kept if kept else None,
            first_tokens=tokens[0],
            second_tokens=tokens[1],
            correlations=list(_correlations(connection, shared)),
            own_scores=list(_own_correlations(connection, *own)),
        )


def _correlations(
    connection: duckdb.DuckDBPyConnection, columns: Sequence[str]
) -> Iterator[ScoreCorrelation]:
    for column in columns:
        values = _values(connection, column, column)
        if len(values):
            yield ScoreCorrelation(column=column, samples=len(values), spearman=spearman(values))


def _own_correlations(
    connection: duckdb.DuckDBPyConnection, first: Sequence[str], second: Sequence[str]
) -> Iterator[OwnCorrelation]:
    for one in first:
        for other in second:
            values = _values(connection, one, other)
            if len(values):
                yield OwnCorrelation(first=one, second=other, samples=len(values), spearman=spearman(values))


def _values(connection: duckdb.DuckDBPyConnection, first: str, second: str) -> pl.DataFrame:
    """The samples with a number in both, (N,) each."""
    query = _BOTH.format(first=identifier(f"first_{first}"), second=identifier(f"second_{second}"))
    values = pl.from_arrow(connection.sql(query).to_arrow_table())
    assert isinstance(values, pl.DataFrame), type(values)
    return values


def score_names(connection: duckdb.DuckDBPyConnection, name: str) -> dict[str, None]:
    """Names of the columns that hold scores: numbers that do not merely count."""
    columns = connection.execute(f"DESCRIBE {name}.sample_scores").fetchall()
    return dict.fromkeys(
        column for column, kind, *_ in columns if kind in _NUMBERS and column not in _NO_SCORES
    )


@contextmanager
def paired(first: Compared, second: Compared) -> Iterator[tuple[duckdb.DuckDBPyConnection, list[str]]]:
    """A connection that sees both runs, with the table `pairs` of the samples that both know; their names."""
    with _attached([first.database, second.database]) as (connection, names):
        samples = [_SAMPLES.format(run=name) for name in names]
        connection.execute(_PAIRS.format(first=samples[0], second=samples[1]))
        yield connection, names


@contextmanager
def _attached(paths: list[Path]) -> Iterator[tuple[duckdb.DuckDBPyConnection, list[str]]]:
    """A connection that sees these files, and their names in it. The same file twice has one name."""
    names = {path: f"run{index}" for index, path in enumerate(dict.fromkeys(paths))}
    with (
        TemporaryDirectory(prefix="datapruner-") as spill,
        duckdb.connect(config={"memory_limit": _MEMORY, "threads": 2, "temp_directory": spill}) as connection,
    ):
        connection.execute("SET enable_progress_bar = false")
        for path, name in names.items():
            connection.execute(f"ATTACH {literal(path)} AS {name} (READ_ONLY)")
        yield connection, [names[path] for path in paths]
