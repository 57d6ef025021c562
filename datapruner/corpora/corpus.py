"""A published corpus version: an immutable DuckDB file, read by any number of processes at once.

    samples     row, sample_id, shape, n_turns, n_chars, duplicate_of, source, line, tools
    turns       row, turn, role, content, tool_calls, tool_call_id, name, untrained, null_content
    rejects     row, source, line, field, code, reason, remedy, excerpt
    originals   row and the original columns (or `json`, the row's own text)
    provenance  one row: what was read, how, and what came of it

`row` is the 0-based index in the whole input, rejected rows included, and the key that joins the tables.
`duplicate_of` is the row of the first identical sample, null for the first itself.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from datapruner.errors import InputError, UsageError, without_paths
from datapruner.input.readers.records import TRUNCATED
from datapruner.rows import json_form
from datapruner.rows.derived import Derivation
from datapruner.rows.json_text import strict
from datapruner.rows.originals import restore, restored_schema
from datapruner.rows.sql_text import literal
from datapruner.rows.writable import Rows
from scorers.conversations.conversation import Conversation, Turn

FORMAT_VERSION = 2
BATCH_ROWS = 1024
_WRITTEN = 2048
"""Rows of a batch that is written."""
# In the order of a turn's fields.
_TURN_COLUMNS = "role, content, tool_calls, tool_call_id, name, untrained, null_content"


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of the input: `rows == accepted + rejected`; `duplicates` are among the accepted."""

    rows: int
    accepted: int
    rejected: int
    duplicates: int

    @property
    def unique(self) -> int:
        return self.accepted - self.duplicates


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a corpus came from. The same input with the same options gives an equal one.

    `sources` are descriptors: name, and for files size and sha256. `corpus_hash` covers the ordered
    sample ids and the rejects.
    """

    corpus_hash: str
    sources: list[dict[str, Any]]
    mapping: dict[str, str] | None
    limits: dict[str, int]
    counts: Counts
    shapes: dict[str, int]
    columns: dict[str, list[str]]
    versions: dict[str, str]
    schema: pa.Schema | None


class Corpus:
    """Read access to a published corpus; use as a context manager.

    Raises InputError when `path` is not a corpus of this format version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"{self.path.name}: no such corpus", remedy="ingest the data first")
        try:
            self._connection = duckdb.connect(str(self.path), read_only=True)
        except duckdb.Error as error:
            raise InputError(f"{self.path.name}: not a corpus file: {without_paths(str(error))}") from error
        try:
            self.provenance = self._read_provenance()
        except (duckdb.Error, InputError):
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def _read_provenance(self) -> Provenance:
        try:
            found = self._connection.execute(
                "SELECT format_version, corpus_hash, sources, mapping, limits, counts, shapes, columns, "
                "versions, original_schema FROM provenance"
            ).fetchall()
        except duckdb.CatalogException as error:
            raise InputError(f"{self.path.name}: a DuckDB file, but not a corpus") from error
        version, corpus_hash, *documents, schema = found[0]
        if version != FORMAT_VERSION:
            raise InputError(
                f"{self.path.name}: corpus format {version}, this version reads {FORMAT_VERSION}",
                remedy="ingest the data again",
            )
        sources, mapping, limits, counts, shapes, columns, versions = map(json.loads, documents)
        return Provenance(
            corpus_hash=corpus_hash,
            sources=sources,
            mapping=mapping,
            limits=limits,
            counts=Counts(**counts),
            shapes=shapes,
            columns=columns,
            versions=versions,
            schema=None if schema is None else pa.ipc.read_schema(pa.py_buffer(schema)),
        )

    def counts(self) -> Counts:
        return self.provenance.counts

    def sample_index(self) -> pl.DataFrame:
        """One line per accepted row, in row order: row, sample_id, duplicate_of, shape, n_turns, n_chars."""
        found = self._frame("SELECT row, sample_id, duplicate_of, shape, n_turns, n_chars FROM samples")
        # As a rule they lie in this order, and to sort them takes DuckDB more memory than to read them.
        return found if found["row"].is_sorted() else found.sort("row")

    def has_tools(self) -> bool:
        """Whether any conversation has tool definitions."""
        query = "SELECT count(*) FROM (SELECT 1 FROM samples WHERE tools IS NOT NULL LIMIT 1)"
        return bool(self._connection.execute(query).fetchall()[0][0])

    def turn_fields(self) -> list[str]:
        """Which of tool_call_id, name and untrained some turn has."""
        names = ("tool_call_id", "name", "untrained")
        counts = ", ".join(f"count({name})" for name in names)
        [found] = self._connection.execute(f"SELECT {counts} FROM turns").fetchall()  # noqa: S608
        return [name for name, count in zip(names, found, strict=True) if count]

    def rejects(self) -> pl.DataFrame:
        """One line per rejected row, in row order."""
        return self._frame("SELECT * FROM rejects ORDER BY row")

    def truncated_sources(self) -> dict[str, str]:
        """The sources that broke off, and where and why: not all of their rows are here."""
        query = "SELECT source, line, reason FROM rejects WHERE code = ? ORDER BY row"
        found = self._connection.execute(query, [TRUNCATED]).fetchall()
        return {source: f"line {line}: {reason}" for source, line, reason in found}

    def conversations(
        self, rows: Sequence[int] | None = None, batch: int = BATCH_ROWS
    ) -> Iterator[list[tuple[int, str, Conversation]]]:
        """Batches of (row, sample_id, conversation) in row order.

        Without `rows`, every sample that is not a duplicate. Raises UsageError for a row that the corpus
        does not have.
        """
        for chosen in self._chunks(rows, batch):
            samples = self._select("SELECT s.row, sample_id, tools FROM samples s", "s", chosen)
            turns = self._select(
                f"SELECT t.row, {_TURN_COLUMNS} FROM turns t",  # noqa: S608
                "t",
                chosen,
                order="t.row, t.turn",
            )
            by_row: dict[int, list[Turn]] = {}
            for row, *parts in zip(*(c.to_pylist() for c in _told(turns)), strict=True):
                by_row.setdefault(row, []).append(Turn(*parts))
            yield [
                (row, sample_id, Conversation(tuple(by_row[row]), tools))
                for row, sample_id, tools in zip(*(c.to_pylist() for c in samples.columns), strict=True)
            ]

    def texts(
        self, roles: Collection[str], batch: int = BATCH_ROWS, rows: Sequence[int] | None = None
    ) -> Iterator[tuple[list[int], list[str], list[str]]]:
        """Batches of (rows, sample ids, texts) in row order, of all samples that are no duplicates or those
        at `rows`.

        A text is what the turns with these roles hold, a line break between them; "" where there are none.
        """
        wanted = ", ".join(map(literal, sorted(roles)))
        for chosen in self._chunks(rows, batch):
            first, last = chosen["row"][0].as_py(), chosen["row"][-1].as_py()
            found = self._select(
                f"SELECT s.row, s.sample_id, coalesce(x.text, '') FROM samples s LEFT JOIN ("  # noqa: S608
                "SELECT t.row, string_agg(t.content, chr(10) ORDER BY t.turn) AS text FROM turns t "
                f"WHERE t.row BETWEEN {first} AND {last} AND t.role IN ({wanted}) GROUP BY t.row"
                ") x ON x.row = s.row",
                "s",
                chosen,
            )
            numbers, ids, contents = (column.to_pylist() for column in found.columns)
            yield numbers, ids, contents

    def turns(self, rows: Sequence[int] | None = None, batch: int = BATCH_ROWS) -> Iterator[pl.DataFrame]:
        """Batches of turns in order: row, turn, role, content, tools (whether the conversation has any),
        called (whether the turn calls one), trained.

        Without `rows`, of every sample that is not a duplicate. Raises UsageError for a row that the corpus
        does not have.
        """
        for chosen in self._chunks(rows, batch):
            found = self._select(
                "SELECT t.row, t.turn, t.role, t.content, s.tools IS NOT NULL AS tools, "
                "t.tool_calls IS NOT NULL AS called, t.untrained IS NULL AS trained "
                "FROM turns t JOIN samples s ON s.row = t.row",
                "t",
                chosen,
                order="t.row, t.turn",
            )
            frame = pl.from_arrow(found)
            assert isinstance(frame, pl.DataFrame), type(frame)
            yield frame

    def conversation(self, sample_id: str) -> Conversation:
        """The conversation with this content hash. Raises UsageError when there is none."""
        found = self._connection.execute(
            "SELECT min(row) FROM samples WHERE sample_id = ?", [sample_id]
        ).fetchall()
        if found[0][0] is None:
            raise UsageError(
                f"{self.path.name}: no sample {sample_id}", remedy="ids are listed by sample_index()"
            )
        [[(_, _, conversation)]] = self.conversations([found[0][0]])
        return conversation

    def originals(
        self, rows: Sequence[int] | None = None, batch: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """The original columns of these rows, in row order, with one schema for all batches.

        Without `rows`, every accepted row. A typed source comes out with its own schema
        (`originals.restored_schema`); rows of JSON with types derived from the whole corpus
        (`derived`), so that another choice of rows has the same schema. Raises InputError.
        """
        schema = self.provenance.schema
        if schema is not None:
            schema = restored_schema(schema)
            for chosen in self._chunks(rows, batch, duplicates=True):
                yield from (restore(each, schema) for each in self._stored(chosen))
            return
        for chosen in self._chunks(rows, batch, duplicates=True):
            yield self._derivation.columns(chosen["row"].to_pylist(), self._texts(chosen))

    def originals_json(self, rows: Sequence[int] | None = None, batch: int = BATCH_ROWS) -> Iterator[bytes]:
        """Each of these rows as one line of JSON, in row order; verbatim where the source was JSON.

        Raises InputError for a column that JSON has no place for (`json_form`).
        """
        return map(strict, self._lines(rows, batch, json_form.IN_JSON))

    def original_rows(self, rows: Sequence[int]) -> Rows:
        """These rows as they came, to be written."""
        return Rows(
            lambda: (pa.Table.from_batches([batch]) for batch in self.originals(rows, _WRITTEN)),
            lambda: self.originals_json(rows, _WRITTEN),
            self.original_names,
        )

    def originals_to_keep(self, rows: Sequence[int]) -> Iterator[bytes]:
        """`originals_json` for another corpus to keep: NaN and infinity stay, for which JSON has no words."""
        return self._lines(rows, BATCH_ROWS, json_form.IN_CORPUS)

    def _lines(self, rows: Sequence[int] | None, batch: int, form: json_form.Form) -> Iterator[bytes]:
        schema = self.provenance.schema
        for chosen in self._chunks(rows, batch, duplicates=True):
            if schema is None:
                yield from self._texts(chosen)
            else:
                for stored in self._stored(chosen):
                    yield from json_form.lines(restore(stored, schema), str(self.path), form)

    def _stored(self, chosen: pa.Table) -> list[pa.RecordBatch]:
        found = self._select("SELECT o.* EXCLUDE row FROM originals o", "o", chosen)
        batches: list[pa.RecordBatch] = found.to_batches()
        return batches

    def _texts(self, chosen: pa.Table) -> list[bytes]:
        texts = self._select("SELECT o.json FROM originals o", "o", chosen).column(0)
        found: list[bytes] = texts.cast(pa.large_binary()).to_pylist()
        return found

    def original_names(self) -> list[str]:
        """The original columns in order."""
        schema = self.provenance.schema
        return list((self._derivation.schema if schema is None else schema).names)

    @cached_property
    def _derivation(self) -> Derivation:
        with self._connection.cursor() as cursor:
            return Derivation(cursor)

    def _chunks(
        self, rows: Sequence[int] | None, batch: int, *, duplicates: bool = False
    ) -> Iterator[pa.Table]:
        """The rows to read, sorted, `batch` at a time, each as a one-column table."""
        if rows is None:
            where = "" if duplicates else "WHERE duplicate_of IS NULL"
            table = self._connection.sql(f"SELECT row FROM samples {where} ORDER BY row").to_arrow_table()  # noqa: S608
        else:
            table = pl.DataFrame({"row": sorted(set(map(int, rows)))}, schema={"row": pl.Int64}).to_arrow()
            self._check(table)
        for start in range(0, table.num_rows, batch):
            yield table.slice(start, batch)

    def _check(self, chosen: pa.Table) -> None:
        with self._connection.cursor() as cursor:
            cursor.register("chosen", chosen)
            missing = cursor.execute(
                "SELECT row FROM chosen ANTI JOIN samples USING (row) ORDER BY row LIMIT 1"
            ).fetchall()
        if missing:
            raise UsageError(
                f"{self.path.name}: the corpus has no sample at row {missing[0][0]}",
                remedy="rejected rows have none; see sample_index()",
            )

    def _select(self, select: str, alias: str, chosen: pa.Table, order: str | None = None) -> pa.Table:
        """Run `select` for the chosen rows only, ordered by row."""
        with self._connection.cursor() as cursor:
            cursor.register("chosen", chosen)
            query = f"{select} SEMI JOIN chosen c ON {alias}.row = c.row ORDER BY {order or alias + '.row'}"
            return cursor.sql(query).to_arrow_table()

    def _frame(self, query: str) -> pl.DataFrame:
        frame = pl.from_arrow(self._connection.sql(query).to_arrow_table())
        assert isinstance(frame, pl.DataFrame), type(frame)
        return frame


def _told(turns: pa.Table) -> list[pa.ChunkedArray]:
    """The columns up to the last in which some turn is not as most: few have any behind the calls."""
    rare = turns.columns[4:]
    if any(column.null_count < turns.num_rows for column in rare[:-1]) or pc.any(rare[-1]).as_py():
        return list(turns.columns)
    return list(turns.columns[:4])
