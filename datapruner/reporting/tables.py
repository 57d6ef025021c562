"""The tables of a run and of its corpus, opened together for questions.

Notable choice: everything is counted by DuckDB where the files lie, a few columns at a time, within a fixed
memory; what does not fit goes to a folder that is deleted in the end. Quartiles hold one column of numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from datapruner.corpora.corpus import Corpus
from datapruner.errors import InputError
from datapruner.rows.sql_text import literal
from datapruner.runs.columns import COLUMNS
from datapruner.runs.published import Run

_MEMORY = "256MB"
_REAL = ("DOUBLE", "FLOAT")
_WHOLE = ("BIGINT", "INTEGER", "UBIGINT", "UINTEGER", "SMALLINT", "TINYINT")
_NAMES = ("VARCHAR", "BOOLEAN")
_NO_SCORES = ("row", "sample_id", "keep", "reason", "status")

# Samples that were measured, each by its first row; copies of it have the same numbers.
_FIRSTS_MEASURED = "CREATE TEMP VIEW firsts AS FROM run.scored"
_FIRSTS = """
CREATE TEMP TABLE firsts AS
SELECT min(row) AS row FROM run.sample_scores WHERE sample_id IS NOT NULL GROUP BY sample_id
"""
_ALL_ARE_FIRST = "SELECT (SELECT count(*) FROM firsts) = (SELECT count(*) FROM run.sample_scores)"
_ROWS = """
CREATE TEMP VIEW scores AS
SELECT *, status = 'kept' AS is_kept FROM run.sample_scores
"""


@dataclass(frozen=True)
class Tables:
    """An open run. The view `scores` is its `sample_scores` with `is_kept`, the view `samples` of these the
    first row of every measured sample; `run` and, with `has_corpus`, `corpus` are the files.

    `selected`: whether rows were kept and pruned, or only scored. `real`, `whole`, `names`: the columns of
    scores by what they hold, and `texts` what they mean.
    """

    connection: duckdb.DuckDBPyConnection
    selected: bool
    has_corpus: bool
    real: tuple[str, ...]
    whole: tuple[str, ...]
    names: tuple[str, ...]
    texts: dict[str, str]

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The answer to a question, which has few lines."""
        return self.connection.execute(query, list(parameters)).fetchall()

    def row(self, query: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...]:
        """The one line of an answer."""
        [found] = self.rows(query, parameters)
        return found

    def batches(self, query: str, size: int = 65_536) -> Iterator[pa.RecordBatch]:
        """The answer to a question with many lines, some at a time; nothing else is asked meanwhile."""
        yield from self.connection.sql(query).to_arrow_reader(size)


@contextmanager
def opened(run: Run, corpus_file: Path) -> Iterator[tuple[Tables, list[str]]]:
    """A run's tables, and notes of what is not there. Raises InputError when the run's file is gone."""
    if not run.database.is_file():
        raise InputError(
            f"the tables of run {run.run_id} are gone", remedy="replay it: datapruner replay RUN.json"
        )
    notes = []
    with (
        TemporaryDirectory(prefix="datapruner-") as spill,
        duckdb.connect(config={"memory_limit": _MEMORY, "threads": 2, "temp_directory": spill}) as connection,
    ):
        connection.execute("SET enable_progress_bar = false")
        connection.execute(f"ATTACH {literal(run.database)} AS run (READ_ONLY)")
        try:
            with Corpus(corpus_file):
                has_corpus = True
        except InputError as error:
            has_corpus = False
            notes.append(f"texts, sources and rejected rows cannot be shown: {error}")
        if has_corpus:
            connection.execute(f"ATTACH {literal(corpus_file)} AS corpus (READ_ONLY)")
        connection.execute(_ROWS)
        connection.execute(_FIRSTS_MEASURED if run.config.methods else _FIRSTS)
        [(all_are_first,)] = connection.execute(_ALL_ARE_FIRST).fetchall()
        some = "" if all_are_first else " SEMI JOIN firsts USING (row)"
        connection.execute(f"CREATE TEMP VIEW samples AS SELECT * FROM scores{some}")  # noqa: S608
        yield _described(connection, run, has_corpus), notes


def _described(connection: duckdb.DuckDBPyConnection, run: Run, has_corpus: bool) -> Tables:
    found = connection.execute(
        "SELECT column_name, data_type, comment FROM duckdb_columns() "
        "WHERE database_name = 'run' AND table_name = 'sample_scores' ORDER BY column_index"
    ).fetchall()
    columns = [(name, kind, text) for name, kind, text in found if name not in _NO_SCORES]
    known = {name: text for name, _, text in columns if text}
    return Tables(
        connection=connection,
        selected=run.config.has_subset,
        has_corpus=has_corpus,
        real=tuple(name for name, kind, _ in columns if kind in _REAL),
        whole=tuple(name for name, kind, _ in columns if kind in _WHOLE),
        names=tuple(name for name, kind, _ in columns if kind in _NAMES),
        texts={name: column.text for name, column in COLUMNS.items()} | known,
    )
