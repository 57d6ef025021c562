"""Building a corpus file under a temporary name, chunk by chunk, and publishing it in one step.

Notable choices:
* Rows are gathered by column, not as objects: nothing is left for the garbage collector to walk, which
  would otherwise take a fifth of the time.
* DuckDB writes in a second thread, at most two chunks behind. With Python's default switch interval of
  5 ms that thread would spend its time waiting for the interpreter lock, a dozen times a chunk.
* One DuckDB thread: it keeps up with the parser, and more of them slow the parser down on a small machine.
* Text is compressed by zstd: smaller and cheaper to write than what DuckDB would choose.
* Row groups are small: they are compressed while the next rows are parsed, not all at the end, and a
  choice of scattered rows reads less.
* The first chunk waits for a second one: a corpus that has no more gets a file of small blocks.
* Exact duplicates are found by DuckDB over the stored ids, out of core, once everything is written.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from datapruner.errors import StorageError, WorkerError
from datapruner.input.shapes import Sample
from datapruner.input.shapes.messages import RawTurn
from datapruner.rows.originals import column_names, store, stored_type
from datapruner.rows.sql_text import identifier, literal
from datapruner.system import blocks
from datapruner.system.files import unfinished
from datapruner.system.space import needed

_ROW_GROUP = 8192
_MEMORY = "512MB"
_MAX_PENDING = 2
_SWITCH_SECONDS = 0.0002

_SCHEMAS = {
    "samples": pa.schema(
        [
            ("row", pa.int64()),
            ("sample_id", pa.string()),
            ("shape", pa.string()),
            ("n_turns", pa.int32()),
            ("n_chars", pa.int64()),
            ("duplicate_of", pa.int64()),
            ("source", pa.string()),
            ("line", pa.int64()),
            ("tools", pa.string()),
        ]
    ),
    "turns": pa.schema(
        [
            ("row", pa.int64()),
            ("turn", pa.int32()),
            ("role", pa.string()),
            ("content", pa.string()),
            ("tool_calls", pa.string()),
            ("tool_call_id", pa.string()),
            ("name", pa.string()),
            ("untrained", pa.string()),
            ("null_content", pa.bool_()),
        ]
    ),
    "rejects": pa.schema(
        [
            ("row", pa.int64()),
            ("source", pa.string()),
            ("line", pa.int64()),
            ("field", pa.string()),
            ("code", pa.string()),
            ("reason", pa.string()),
            ("remedy", pa.string()),
            ("excerpt", pa.string()),
        ]
    ),
    "provenance": pa.schema(
        [
            ("format_version", pa.int32()),
            ("corpus_hash", pa.string()),
            ("sources", pa.string()),
            ("mapping", pa.string()),
            ("limits", pa.string()),
            ("counts", pa.string()),
            ("shapes", pa.string()),
            ("columns", pa.string()),
            ("versions", pa.string()),
            ("original_schema", pa.binary()),
        ]
    ),
}
_PLAIN_TURN = (None, None, None, False)
_JSON_ORIGINALS = pa.schema([("row", pa.int64()), ("json", pa.string())])
_MARK_DUPLICATES = """
UPDATE samples SET duplicate_of = first_row
FROM (SELECT sample_id AS id, min(row) AS first_row FROM samples GROUP BY sample_id HAVING count(*) > 1)
WHERE sample_id = id AND row > first_row
"""


@dataclass(slots=True)
class Chunk:
    """Rows gathered since the last write, by column."""

    rows: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)
    n_turns: list[int] = field(default_factory=list)
    n_chars: list[int] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    tools: list[str | None] = field(default_factory=list)
    turns: list[RawTurn] = field(default_factory=list)
    texts: list[bytes | None] = field(default_factory=list)
    tables: list[pa.RecordBatch] = field(default_factory=list)
    rejects: list[tuple[Any, ...]] = field(default_factory=list)
    chars: int = 0

    def add(self, row: int, source: str, line: int, text: bytes | None, sample: Sample) -> None:
        """Take an accepted row; the row of its table, where the source has one, goes to `tables`."""
        sample_id, shape, _, turns, tools, n_chars = sample
        self.rows.append(row)
        self.ids.append(sample_id)
        self.shapes.append(shape)
        self.n_turns.append(len(turns))
        self.n_chars.append(n_chars)
        self.sources.append(source)
        self.lines.append(line)
        self.tools.append(tools)
        self.turns += turns
        self.texts.append(text)
        self.chars += n_chars if text is None else max(n_chars, len(text))

    def to_arrow(self, schema: pa.Schema | None) -> dict[str, pa.Table]:
        """One table for each table of the corpus that gets rows."""
        tables: dict[str, pa.Table] = {}
        if self.rejects:
            tables["rejects"] = _table("rejects", *zip(*self.rejects, strict=True))
        if not self.rows:
            return tables
        rows, n_turns = np.array(self.rows), np.array(self.n_turns)
        counts = (n_turns, self.n_chars, pa.nulls(len(rows)))
        places = (self.sources, self.lines)
        tables["samples"] = _table("samples", rows, self.ids, self.shapes, *counts, *places, self.tools)
        starts = np.repeat(np.cumsum(n_turns) - n_turns, n_turns)
        numbers = np.arange(len(self.turns)) - starts
        plain = [[turn[part] for turn in self.turns] for part in range(3)]
        tables["turns"] = _table("turns", np.repeat(rows, n_turns), numbers, *plain, *self._rare_parts())
        if schema is None:
            tables["originals"] = pa.table([rows, self.texts], schema=_JSON_ORIGINALS)
        else:
            kept = pa.schema([(f"c{i}", stored_type(field.type)) for i, field in enumerate(schema, 1)])
            batches = [
                pa.RecordBatch.from_arrays(list(map(store, batch.columns)), schema=kept)
                for batch in self.tables
            ]
            originals = pa.Table.from_batches(batches, kept)
            tables["originals"] = originals.add_column(0, "c0", pa.array(rows))
        return tables

    def _rare_parts(self) -> list[Any]:
        """The columns of what few turns have."""
        if any(len(turn) > 3 for turn in self.turns):
            rare = (turn[3:] if len(turn) > 3 else _PLAIN_TURN for turn in self.turns)
            return list(map(list, zip(*rare, strict=True)))
        return [*(pa.nulls(len(self.turns)) for _ in _PLAIN_TURN[:-1]), np.zeros(len(self.turns), np.bool_)]


def _table(name: str, *columns: Any) -> pa.Table:
    return pa.table(list(columns), schema=_SCHEMAS[name])


class CorpusWriter:
    """Writes one corpus file. `schema` is that of typed originals, None keeps JSON text."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        thread: ThreadPoolExecutor,
        path: Path,
        schema: pa.Schema | None,
    ) -> None:
        self.schema = schema
        self._connection, self._thread, self._path = connection, thread, path
        self._first: Chunk | None = None
        self._begun = False
        self._pending: list[Future[None]] = []

    def _begin(self, block_size: int) -> None:
        """Make the file, with the first chunk if there is one."""
        if self._begun:
            return
        self._begun = True
        self._connection.execute(
            f"ATTACH {literal(self._path)} AS corpus (ROW_GROUP_SIZE {_ROW_GROUP}, BLOCK_SIZE {block_size})"
        )
        self._connection.execute("USE corpus")
        self._connection.execute("BEGIN")
        schema = self.schema
        for name, columns in _SCHEMAS.items():
            self._create(name, columns, columns.names)
        if schema is None:
            self._create("originals", _JSON_ORIGINALS, _JSON_ORIGINALS.names)
        else:
            kept = [(field.name, stored_type(field.type)) for field in schema]
            self._create("originals", pa.schema([("row", pa.int64()), *kept]), ["row", *column_names(schema)])
        if self._first is not None:
            self._queue(self._first)
            self._first = None

    def _create(self, table: str, schema: pa.Schema, names: list[str]) -> None:
        empty = pa.schema([item.with_name(f"c{i}") for i, item in enumerate(schema)]).empty_table()
        self._connection.register("empty", empty)
        columns = ", ".join(f"c{i} AS {identifier(name)}" for i, name in enumerate(names))
        self._connection.execute(f"CREATE TABLE {table} AS SELECT {columns} FROM empty")  # noqa: S608
        self._connection.unregister("empty")

    def put(self, chunk: Chunk) -> None:
        """Queue a chunk; waits when the queue is full, and raises what an earlier write raised."""
        if not (chunk.rows or chunk.rejects):
            return
        if self._first is None and not self._begun:
            self._first = chunk
            return
        self._begin(blocks.DEFAULT)
        self._queue(chunk)

    def _queue(self, chunk: Chunk) -> None:
        if len(self._pending) == _MAX_PENDING:
            self._pending.pop(0).result()
        self._pending.append(self._thread.submit(self._write, chunk.to_arrow(self.schema)))

    def finish(self) -> int:
        """Wait for the writes and mark the exact duplicates; their number."""
        self._begin(blocks.SMALL)  # unless there was more than one chunk
        for future in self._pending:
            future.result()
        self._pending.clear()
        self._connection.execute(_MARK_DUPLICATES).fetchall()
        found = self._connection.execute("SELECT count(duplicate_of) FROM samples").fetchall()
        return int(found[0][0])

    def put_provenance(self, values: dict[str, Any]) -> None:
        schema = _SCHEMAS["provenance"]
        self._write({"provenance": pa.Table.from_pylist([values], schema=schema)})

    def _write(self, tables: dict[str, pa.Table]) -> None:
        # DuckDB finds `chunk` among the local names. Registering it instead would put a view into the
        # catalog, and the open transaction would keep every dropped view and its rows to the end.
        for name, chunk in tables.items():  # noqa: B007, PERF102
            self._connection.execute(f"INSERT INTO {name} SELECT * FROM chunk").fetchall()  # noqa: S608


@contextmanager
def building(out: Path, schema: pa.Schema | None) -> Iterator[CorpusWriter]:
    """A writer to a new file that becomes `out` when the block ends well; a failure leaves no trace.

    Raises StorageError when the folder cannot be written, NoSpaceError for want of space, WorkerError when
    DuckDB fails.
    """
    with needed("the corpus"):
        yield from _building(out, schema)


def _building(out: Path, schema: pa.Schema | None) -> Iterator[CorpusWriter]:
    path = unfinished(out)
    spill = path.with_name(f"{path.name}.spill")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        spill.mkdir()
    except OSError as error:
        raise StorageError(f"{out.parent}: cannot be written: {error.strerror}") from error
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        with duckdb.connect() as connection, ThreadPoolExecutor(1) as thread:
            connection.execute(f"SET memory_limit = '{_MEMORY}'")
            connection.execute("SET threads = 1")
            connection.execute("SET force_compression = 'zstd'")
            connection.execute(f"SET temp_directory = {literal(spill)}")
            yield CorpusWriter(connection, thread, path, schema)
            connection.execute("COMMIT")
            connection.execute("USE memory")
            connection.execute("DETACH corpus")
        path.replace(out)
    except duckdb.Error as error:
        raise WorkerError(f"{out}: the corpus cannot be written: {error}") from error
    finally:
        sys.setswitchinterval(switch_interval)
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.wal").unlink(missing_ok=True)
        shutil.rmtree(spill, ignore_errors=True)
