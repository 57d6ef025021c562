"""From a source of rows to a published, immutable corpus.

Reading and parsing run in the calling thread, DuckDB writes in a second one behind a short queue, so the
two overlap and memory holds a few thousand rows whatever the input's size. The file is built under a
temporary name in the same folder and published by `os.replace`; a failure leaves nothing behind.

Notable choices:
* Exact duplicates are found by DuckDB over the stored ids, out of core, once everything is written.
* Row groups are small: they are compressed while the next rows are parsed, not all at the end, and a
  choice of scattered rows reads less.
* No timestamps and no absolute paths inside: the same input gives the same logical content.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import orjson
import pyarrow as pa

from datapruner.corpus import FORMAT_VERSION, Counts
from datapruner.errors import DataprunerError, InputError, UsageError, WorkerError
from datapruner.formats import DEFAULT_LIMITS, Columns, Limits, Rejection, RowParser, Sample
from datapruner.originals import column_names, quote, store, stored_field
from datapruner.readers import Batch, Record, Source, open_sources

Progress = Callable[[int, int, int | None], None]

_FLUSH_ROWS = 4096
_FLUSH_CHARS = 8 << 20
_EXCERPT = 200
_ROW_GROUP = 8192
_MEMORY = "512MB"
_TABLES = """
CREATE TABLE samples (row BIGINT, sample_id VARCHAR, shape VARCHAR, n_turns INTEGER, n_chars BIGINT,
                      duplicate_of BIGINT, source VARCHAR, line BIGINT, tools VARCHAR);
CREATE TABLE turns (row BIGINT, turn INTEGER, role VARCHAR, content VARCHAR, tool_calls VARCHAR);
CREATE TABLE rejects (row BIGINT, source VARCHAR, line BIGINT, field VARCHAR, code VARCHAR,
                      reason VARCHAR, remedy VARCHAR, excerpt VARCHAR);
CREATE TABLE provenance (format_version INTEGER, corpus_hash VARCHAR, sources JSON, mapping JSON,
                         limits JSON, counts JSON, shapes JSON, columns JSON, versions JSON,
                         original_schema BLOB);
"""
_MARK_DUPLICATES = """
UPDATE samples SET duplicate_of = first_row
FROM (SELECT sample_id AS id, min(row) AS first_row FROM samples GROUP BY sample_id HAVING count(*) > 1)
WHERE sample_id = id AND row > first_row
"""


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of the input: `rows == accepted + rejected`; `duplicates` are among the accepted.

    `shapes` and `rejects` count rows by shape and by reject code; `columns` names the columns that were
    read for each shape.
    """

    path: Path
    corpus_hash: str
    rows: int
    accepted: int
    rejected: int
    duplicates: int
    shapes: dict[str, int]
    columns: dict[str, list[str]]
    rejects: dict[str, int]
    sources: list[str]


def ingest(
    source: Any,
    *,
    out: Path,
    mapping: Mapping[str, str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> IngestReport:
    """Read `source` (see `readers.open_sources`) and publish the corpus file `out`.

    `progress` is called with rows read, bytes read and bytes in total (None when unknown). Raises
    InputError when the source cannot be read or no row is accepted, UsageError when the mapping is wrong;
    then nothing is published, and an earlier file at `out` stays.
    """
    parser = RowParser(mapping, limits)
    sources = open_sources(source, mapping)
    schema = _common_schema(sources)
    out = Path(out)
    with _building(out) as (connection, writer):
        _create(connection, schema)
        run = _Run(parser, _Writer(connection, writer, schema))
        for item in sources:
            for batch in item.batches(limits, typed=schema is not None):
                run.add(item.name, batch)
                if progress is not None:
                    progress(run.rows, *_bytes(sources))
        run.finish(sources)
        duplicates = _mark_duplicates(connection)
        counts = Counts(run.rows, run.accepted, run.rows - run.accepted, duplicates)
        shapes, columns = dict(sorted(run.shapes.items())), run.columns_by_shape()
        connection.execute(
            "INSERT INTO provenance VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                FORMAT_VERSION,
                run.corpus_hash,
                *map(
                    _document,
                    (
                        [_describe(item) for item in sources],
                        dict(mapping) if mapping else None,
                        asdict(limits),
                        asdict(counts),
                        shapes,
                        columns,
                        {name: version(name) for name in ("duckdb", "pyarrow", "polars", "orjson")},
                    ),
                ),
                None if schema is None else schema.serialize().to_pybytes(),
            ],
        )
    return IngestReport(
        path=out,
        corpus_hash=run.corpus_hash,
        rows=counts.rows,
        accepted=counts.accepted,
        rejected=counts.rejected,
        duplicates=duplicates,
        shapes=shapes,
        columns=columns,
        rejects=dict(run.rejects.most_common()),
        sources=[item.name for item in sources],
    )


def _common_schema(sources: list[Source]) -> pa.Schema | None:
    """The schema that holds the rows of all sources; None when some have none or they clash."""
    schemas = [source.schema for source in sources if source.readable]
    if not schemas or any(schema is None for schema in schemas):
        return None
    try:
        return pa.unify_schemas(schemas)
    except pa.ArrowException:
        return None


@contextmanager
def _building(out: Path) -> Iterator[tuple[duckdb.DuckDBPyConnection, ThreadPoolExecutor]]:
    """A connection to a new file that becomes `out` when the block ends well, and a thread to write it."""
    token = f".{out.name}.{secrets.token_hex(4)}.tmp"
    building, spill = out.parent / token, out.parent / f"{token}.d"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        spill.mkdir()
    except OSError as error:
        raise UsageError(f"{out.parent}: cannot be written: {error.strerror}") from error
    threads = min(4, os.cpu_count() or 1)
    try:
        with duckdb.connect() as connection, ThreadPoolExecutor(1) as writer:
            connection.execute(f"SET memory_limit = '{_MEMORY}'")
            connection.execute(f"SET temp_directory = '{_escape(spill)}'")
            connection.execute(f"SET threads = {threads}")
            connection.execute(f"ATTACH '{_escape(building)}' AS corpus (ROW_GROUP_SIZE {_ROW_GROUP})")
            connection.execute("USE corpus")
            connection.execute("BEGIN")
            yield connection, writer
            connection.execute("COMMIT")
            connection.execute("USE memory")
            connection.execute("DETACH corpus")
        building.replace(out)
    except duckdb.Error as error:
        raise WorkerError(f"{out}: the corpus cannot be written: {error}") from error
    finally:
        building.unlink(missing_ok=True)
        building.with_name(f"{building.name}.wal").unlink(missing_ok=True)
        shutil.rmtree(spill, ignore_errors=True)


def _escape(path: Path) -> str:
    return str(path).replace("'", "''")


def _create(connection: duckdb.DuckDBPyConnection, schema: pa.Schema | None) -> None:
    connection.execute(_TABLES)
    if schema is None:
        connection.execute("CREATE TABLE originals (row BIGINT, json VARCHAR)")
        return
    names = ["row", *column_names(schema)]
    fields = [pa.field("row", pa.int64()), *(stored_field(item) for item in schema)]
    empty = pa.schema([item.with_name(f"c{i}") for i, item in enumerate(fields)]).empty_table()
    connection.register("empty", empty)
    listed = ", ".join(f"c{i} AS {quote(name)}" for i, name in enumerate(names))
    connection.execute(f"CREATE TABLE originals AS SELECT {listed} FROM empty")  # noqa: S608
    connection.unregister("empty")


def _mark_duplicates(connection: duckdb.DuckDBPyConnection) -> int:
    connection.execute(_MARK_DUPLICATES).fetchall()
    found = connection.execute("SELECT count(duplicate_of) FROM samples").fetchall()
    return int(found[0][0])


def _bytes(sources: list[Source]) -> tuple[int, int | None]:
    totals = [source.bytes_total for source in sources]
    known = [total for total in totals if total is not None]
    return sum(source.bytes_done for source in sources), sum(known) if len(known) == len(totals) else None


def _describe(source: Source) -> dict[str, Any]:
    if source.path is None:
        return {"name": source.name}
    with source.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": source.name, "size": source.path.stat().st_size, "sha256": digest}


def _document(value: object) -> str:
    return json.dumps(value, sort_keys=True)


class _Writer:
    """Writes chunks in the second thread, at most two behind the reader."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, thread: ThreadPoolExecutor, schema: pa.Schema | None
    ) -> None:
        self.connection, self.thread, self.schema = connection, thread, schema
        self.pending: list[Future[None]] = []

    def put(self, tables: dict[str, pa.Table]) -> None:
        if len(self.pending) == 2:
            self.pending.pop(0).result()
        self.pending.append(self.thread.submit(self._write, tables))

    def wait(self) -> None:
        for future in self.pending:
            future.result()
        self.pending.clear()

    def _write(self, tables: dict[str, pa.Table]) -> None:
        for name, table in tables.items():
            self.connection.register("chunk", table)
            self.connection.execute(f"INSERT INTO {name} SELECT * FROM chunk").fetchall()  # noqa: S608
            self.connection.unregister("chunk")


@dataclass(slots=True)
class _Chunk:
    """Rows gathered since the last write, by column."""

    rows: list[int] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    texts: list[bytes | None] = field(default_factory=list)
    tables: list[pa.RecordBatch] = field(default_factory=list)
    rejects: list[tuple[Any, ...]] = field(default_factory=list)
    chars: int = 0

    def arrow(self, schema: pa.Schema | None) -> dict[str, pa.Table]:
        """The gathered rows as one table for each table of the corpus that gets any."""
        tables: dict[str, pa.Table] = {}
        if self.rejects:
            rejects = list(zip(*self.rejects, strict=True))
            tables["rejects"] = pa.table(rejects, schema=_REJECTS)
        if not self.samples:
            return tables
        ids, shapes, _, turns, tools, chars = zip(*self.samples, strict=True)
        rows = np.array(self.rows, np.int64)
        n_turns = np.fromiter(map(len, turns), np.int32, len(turns))
        tables["samples"] = pa.table(
            [rows, ids, shapes, n_turns, chars, pa.nulls(len(rows)), self.sources, self.lines, tools],
            schema=_SAMPLES,
        )
        roles, contents, calls = zip(*chain.from_iterable(turns), strict=True)
        starts = np.repeat(np.cumsum(n_turns) - n_turns, n_turns)
        numbers = np.arange(len(roles), dtype=np.int64) - starts
        tables["turns"] = pa.table([np.repeat(rows, n_turns), numbers, roles, contents, calls], schema=_TURNS)
        if schema is None:
            tables["originals"] = pa.table([rows, self.texts], schema=_JSON_ORIGINALS)
        else:
            original = pa.Table.from_batches(self.tables).combine_chunks().to_batches()[0]
            stored = [pa.array(rows), *store(original)]
            tables["originals"] = pa.Table.from_arrays(stored, [f"c{i}" for i in range(len(stored))])
        return tables


_SAMPLES = pa.schema(
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
)
_TURNS = pa.schema(
    [
        ("row", pa.int64()),
        ("turn", pa.int32()),
        ("role", pa.string()),
        ("content", pa.string()),
        ("tool_calls", pa.string()),
    ]
)
_REJECTS = pa.schema(
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
)
_JSON_ORIGINALS = pa.schema([("row", pa.int64()), ("json", pa.string())])


class _Run:
    """One pass over the input: parses records, counts, hashes, and hands chunks to the writer."""

    def __init__(self, parser: RowParser, writer: _Writer) -> None:
        self.parser, self.writer = parser, writer
        self.rows = self.accepted = 0
        self.shapes: Counter[str] = Counter()
        self.rejects: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.layouts: dict[tuple[str, Columns], None] = {}
        self.hash = hashlib.blake2b(digest_size=16)
        self.chunk = _Chunk()

    @property
    def corpus_hash(self) -> str:
        return self.hash.hexdigest()

    def add(self, source: str, batch: Batch) -> None:
        chunk, parse = self.chunk, self.parser.parse
        taken: list[int] = []
        index = 0
        last: Columns | None = None
        ids: list[str] = []
        for record in batch.records:
            result = record.fault or parse(record.row)
            if isinstance(result, Rejection):
                self._reject(source, record, result, ids)
            else:
                chunk.rows.append(self.rows)
                chunk.samples.append(result)
                chunk.sources.append(source)
                chunk.lines.append(record.position)
                chunk.texts.append(record.text)
                chunk.chars += result.n_chars
                ids.append(result.sample_id)
                taken.append(index)
                if result.columns is not last:
                    last = result.columns
                    self.layouts[result.shape, last] = None
            index += record.fault is None
            self.rows += 1
        self.accepted += len(taken)
        self.hash.update("".join(ids).encode())
        if taken and batch.table is not None:
            table = batch.table
            if len(taken) < table.num_rows:
                table = table.take(pa.array(taken, pa.int64()))
            chunk.tables.append(self._aligned(table))
        if len(chunk.rows) >= _FLUSH_ROWS or chunk.chars >= _FLUSH_CHARS or len(chunk.rejects) >= _FLUSH_ROWS:
            self._flush()

    def _aligned(self, table: pa.RecordBatch) -> pa.RecordBatch:
        """The batch under the schema of all sources, with nulls for columns that its file lacks."""
        schema = self.writer.schema
        assert schema is not None, table.schema
        if table.schema.names == schema.names and table.schema.types == schema.types:
            return table.replace_schema_metadata(schema.metadata)
        columns = [
            table.column(item.name).cast(item.type)
            if item.name in table.schema.names
            else pa.nulls(table.num_rows, item.type)
            for item in schema
        ]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _reject(self, source: str, record: Record, fault: Rejection, ids: list[str]) -> None:
        excerpt = record.excerpt or _excerpt(record)
        self.chunk.rejects.append(
            (
                self.rows,
                source,
                record.position,
                fault.field,
                fault.code,
                fault.reason,
                fault.remedy,
                excerpt,
            )
        )
        ids.append(f"|{self.rows}:{fault.code}:{fault.field}|")
        self.rejects[fault.code] += 1
        self.examples.setdefault(fault.code, f"{source}, line {record.position}: {fault.reason}")

    def _flush(self) -> None:
        self.shapes.update(sample.shape for sample in self.chunk.samples)
        self.writer.put(self.chunk.arrow(self.writer.schema))
        self.chunk = _Chunk()

    def finish(self, sources: list[Source]) -> None:
        """Write what is left, and refuse a corpus that has no sample or whose mapping misfits."""
        self._flush()
        self.writer.wait()
        if self.parser.unseen_columns and self.rows:
            missing = ", ".join(f"'{name}'" for name in sorted(self.parser.unseen_columns))
            raise UsageError(
                f"the mapping names {missing}, which no row has", remedy="check the spelling of the columns"
            )
        if self.accepted == 0:
            raise self._nothing(sources)

    def _nothing(self, sources: list[Source]) -> DataprunerError:
        named = ", ".join(source.name for source in sources[:3]) + (", …" if len(sources) > 3 else "")
        if self.rows == 0:
            return InputError(f"{named}: there are no rows", remedy="give data with at least one row")
        reasons = "; ".join(
            f"{count:,} × {code} ({self.examples[code]})" for code, count in self.rejects.most_common(3)
        )
        return InputError(
            f"{named}: none of the {self.rows:,} rows is a usable sample: {reasons}",
            remedy="correct the data, or name its columns with a mapping",
        )

    def columns_by_shape(self) -> dict[str, list[str]]:
        columns: dict[str, dict[str, None]] = {}
        for shape, layout in self.layouts:
            columns.setdefault(shape, {}).update(dict.fromkeys(layout.used))
        return {shape: list(names) for shape, names in sorted(columns.items())}


def _excerpt(record: Record) -> str | None:
    if record.text is not None:
        return record.text[:_EXCERPT].decode(errors="replace")
    if record.row is None:
        return None
    try:
        return orjson.dumps(record.row, default=str).decode()[:_EXCERPT]
    except (orjson.JSONEncodeError, TypeError):
        return repr(record.row)[:_EXCERPT]
