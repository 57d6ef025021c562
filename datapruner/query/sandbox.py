"""Run a user's SELECT over published files, in a process that cannot harm them or the machine.

Notable choices:
- DuckDB inside one process cannot be made safe, so every query has a process of its own (`child.py`, which
  lists the layers); this side only sends the request, reads the answer and kills. `nursery.py` starts them,
  `pool.py` before they are needed.
- The child gets its time from the moment it is locked; starting it does not count. What comes out of it is
  the document that was asked for: nothing is made of a statement's rows in this process.
- Its input stays open while it works: when this process is gone, however it went, the kernel ends the child.
- Whatever the child says is bounded here too: it is assumed to be under the query's control.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from datapruner.errors import DataprunerError, InputError, UsageError, WorkerError
from datapruner.query import results
from datapruner.query.nursery import Child, begun
from datapruner.query.results import QueryResult
from datapruner.rows.formats import AnswerFormat

#: Seconds that a child may need until it is locked and ready, on a busy machine.
START_SECONDS = 30.0
#: Seconds after the query's own time for DuckDB to notice, and for the result to come through.
GRACE_SECONDS = 1.0
#: The longest line that a child may send; its messages are cut well below it.
MAX_LINE = 1 << 16
#: Bytes of a statement with its parameters, as JSON.
MAX_REQUEST = 4 << 20

#: How a query that DuckDB or a writer has no answer to may end its process.
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL})
#: Schemas and catalogs that DuckDB has of itself.
RESERVED = frozenset({"main", "memory", "temp", "system", "information_schema", "pg_catalog"})

Databases = Mapping[str, Path | Sequence[Path]]
Parameters = Sequence[Any] | Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """What one query may use.

    `rows` and `bytes` (Arrow's size in memory) bound the result, which is cut there; a first row larger than
    `bytes` leaves it empty. `seconds` is wall time, of planning, running and writing. `memory_bytes`
    bounds DuckDB's memory; the process may reserve 1 GiB more for itself. What does not fit there goes to
    the disk of temporary files, `spill_bytes` of it at most. `threads` run the query.
    """

    rows: int = 10_000
    bytes: int = 64 << 20
    seconds: float = 10.0
    memory_bytes: int = 1 << 30
    spill_bytes: int = 16 << 30
    threads: int = 2

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < math.inf:
                raise UsageError(f"query limit {name} is {value}", remedy="give a number above zero")

    @property
    def document_bytes(self) -> int:
        """The longest document that may be made of `bytes`: names, padding and digits come on top."""
        return 2 * self.bytes + (16 << 20)


@dataclass(frozen=True, slots=True)
class Document:
    """The answer to a query in the format that was asked for; the rest as of `QueryResult`."""

    content: bytes
    truncated: bool
    seconds: float

    def result(self) -> QueryResult:
        """What was written as Arrow. Raises WorkerError."""
        try:
            return results.read(self.content, truncated=self.truncated, seconds=self.seconds)
        except ValueError as error:
            raise WorkerError(f"the query process sent a broken result: {error}") from error


def run_sql(
    sql: str,
    databases: Databases,
    *,
    tables: Mapping[str, pa.Table] = {},
    parameters: Parameters = None,
    limits: QueryLimits = QueryLimits(),
) -> QueryResult:
    """Run one SELECT and return its first rows.

    `databases` maps a schema name to DuckDB and Parquet files that nothing writes to any more. Tables and
    views of each DuckDB file's main schema appear in the schema of that name, and each `NAME.parquet` as the
    table NAME; the name "" stands for the default schema, which also has `tables`. `parameters` fill `?`,
    `$1` (a sequence) or `$name` (a mapping) and are JSON values. Dates and times are in UTC. Columns of the
    same name get a number.

    Raises UsageError, with DuckDB's message, when `sql` is not one valid SELECT, gives more than 4,096
    columns, or takes more time or memory than `limits` allow; InputError when a file cannot be read;
    WorkerError when the process fails otherwise.
    """
    query = Query.of(sql, databases, tables, parameters, limits)
    with begun() as child:
        return ask(child, query).result()


@dataclass(frozen=True, slots=True)
class Query:
    """What one child is asked: `message` goes to its input, the rest is needed to understand its answer."""

    message: Sequence[bytes]
    files: Sequence[tuple[str, Path]]
    limits: QueryLimits
    kind: AnswerFormat

    @classmethod
    def of(
        cls,
        sql: str,
        databases: Databases,
        tables: Mapping[str, pa.Table],
        parameters: Parameters,
        limits: QueryLimits,
        kind: AnswerFormat = "arrow",
    ) -> Query:
        """The query of `run_sql`'s arguments. Raises UsageError and InputError as that does."""
        for name in (*databases, *tables):
            if name and (not name.isidentifier() or name.lower() in RESERVED):
                raise UsageError(
                    f"{name!r} cannot be a schema or table", remedy="use a plain, unreserved name"
                )
        files = [
            (name, path.absolute())
            for name, paths in databases.items()
            for path in ([paths] if isinstance(paths, Path) else paths)
        ]
        for _, path in files:
            log = Path(f"{path}.wal")
            if log.exists():
                raise InputError(
                    f"{log}: the database was not closed", remedy="open it once to finish its writes"
                )
        request = {
            "sql": sql,
            "databases": [(name, str(path)) for name, path in files],
            "tables": list(tables),
            "parameters": parameters,
            "limits": asdict(limits),
            "format": kind,
            "most": limits.document_bytes,
            "spill_folder": tempfile.gettempdir(),
        }
        try:
            line = json.dumps(request).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(
                f"query parameters: {error}",
                remedy="give JSON values; pass dates as text and cast them in SQL",
                field="parameters",
            ) from error
        if len(line) > MAX_REQUEST:
            raise UsageError(
                f"the statement and its parameters are longer than {MAX_REQUEST >> 20} MiB",
                remedy="give less at a time",
                field="parameters",
            )
        return cls([line, *map(_stream, tables.values())], files, limits, kind)


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def ask(child: Child, query: Query) -> Document:
    """The child's answer; it can be asked once. Raises as `run_sql` does."""
    limits = query.limits
    with _killed_after(child, START_SECONDS):
        # A child that is gone already is noticed by its silence.
        with contextlib.suppress(BrokenPipeError):
            child.input.writelines(query.message)
            child.input.flush()
        event = _event(child.output)
    content = b""
    started = event is not None and event["event"] == "started"
    if started:
        with _killed_after(child, limits.seconds + GRACE_SECONDS):
            event = _event(child.output)
            content = child.output.read(limits.document_bytes + 1)
        if child.killed.is_set():
            raise _too_long(limits)
    if event is None:
        raise _died(child, limits, started)
    if event["event"] == "done":
        if len(content) > limits.document_bytes:
            raise _too_long_to_write(query)
        return Document(content, event["truncated"], event["seconds"])
    raise _failure(event, query)


def _event(stream: IO[bytes]) -> dict[str, Any] | None:
    """The next line of the protocol, None when the child has gone."""
    line = stream.readline(MAX_LINE)
    if not line.endswith(b"\n"):
        return None
    event: dict[str, Any] = json.loads(line)
    return event


def _failure(event: Mapping[str, Any], query: Query) -> DataprunerError:
    kind, message = event["kind"], event["message"]
    if kind == "time":
        return _too_long(query.limits)
    if kind == "memory":
        return _too_large(query.limits)
    if kind == "database":
        return InputError(
            f"{query.files[event['number']][1]}: cannot be read as a DuckDB or Parquet file: {message}",
            remedy="give one that was written whole and closed",
        )
    if kind == "length":
        return _too_long_to_write(query)
    if kind == "format":
        return UsageError(
            f"the result cannot be written as {query.kind}: {message}",
            remedy="cast the column to VARCHAR",
            field="sql",
        )
    return UsageError(
        message, remedy="give one SELECT; `SHOW ALL TABLES` lists what it can read", field="sql"
    )


def _too_long(limits: QueryLimits) -> UsageError:
    return UsageError(
        f"the query took longer than {limits.seconds:g} s",
        remedy="filter or aggregate earlier, or raise the time limit",
        field="sql",
    )


def _too_long_to_write(query: Query) -> UsageError:
    return UsageError(
        f"the answer is longer than {query.limits.document_bytes >> 20} MiB as {query.kind}",
        remedy="select fewer rows or columns",
        field="sql",
    )


def _too_large(limits: QueryLimits) -> UsageError:
    return UsageError(
        f"the query needs more than {limits.memory_bytes >> 20:,} MiB of memory and "
        f"{limits.spill_bytes >> 20:,} MiB of temporary files, or than their disk has",
        remedy="filter or aggregate earlier, or raise the limits",
        field="sql",
    )


def _died(child: Child, limits: QueryLimits, started: bool) -> DataprunerError:
    """Why the child ended without an answer."""
    status = child.exit_code(START_SECONDS)  # on a busy machine the nursery is late to tell
    if status is None:
        child.kill()
        status = child.exit_code(START_SECONDS)
    said = child.errors.read(MAX_LINE).decode(errors="replace").strip()
    if status == -signal.SIGXCPU:
        return _too_long(limits)
    if "bad_alloc" in said or "MemoryError" in said or "OutOfMemory" in said:
        return _too_large(limits)
    if started and status is not None and -status in _CRASHES:
        name = signal.Signals(-status).name
        return UsageError(
            f"the statement brought its process down ({name})",
            remedy="write it in a simpler way",
            field="sql",
        )
    return WorkerError(f"the query process ended with status {status}: {said[-500:]}")


@contextlib.contextmanager
def _killed_after(child: Child, seconds: float) -> Iterator[None]:
    """Kill the child if the block takes longer."""
    timer = threading.Timer(seconds, child.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
