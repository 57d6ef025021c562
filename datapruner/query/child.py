"""The throw-away process: answers one user query over read-only DuckDB files, then ends.

Runs as a script of its own (`python -I child.py`) and imports nothing of datapruner, so that its start does
not grow with the package. It may be started long before it is needed: it waits for one line of JSON, the
request (`sandbox.py` builds it). It answers with lines of JSON: `{"event": "started"}` once everything is
locked and the query's time begins to count, then either `{"event": "failed", "kind": ..., "message": ...}` or
`{"event": "done", "seconds": ..., "truncated": ...}` followed by one Arrow IPC stream.

Layers, in the order in which they are put on; each was found necessary or cheap:
- address space, processor time and file size are limited by the kernel, because some scalar functions heed
  neither DuckDB's time-out nor an interrupt;
- the connection has no database of its own, no extensions to load, no spill folder, no Python variables;
- files are opened here and handed to DuckDB by number through `AttachedFiles`: DuckDB would show a real
  path in `duckdb_databases()` (it follows symbolic links and /dev/fd), and would keep it in `allowed_paths`,
  which external access does not close and where a COPY inside a CTE may write;
- external access, then the local file system, then the configuration are closed, in this order: with
  the file system disabled, external access can no longer be set, and nothing can after the third;
- the kernel gives out no file descriptor from then on: no file, socket or pipe can be opened at all;
- one statement of type SELECT is run; every other type is refused before it is planned.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, BinaryIO

if __name__ == "__main__":
    # pyarrow takes numpy when it finds it; that is a third of this process's start and not used here.
    sys.modules["numpy"] = None  # type: ignore[assignment]

import duckdb
import pyarrow as pa
from fsspec import AbstractFileSystem

#: Address space that the interpreter, the libraries and the stacks of idle threads reserve, in bytes.
RESERVED_BYTES = 1 << 30
MAX_EXPRESSION_DEPTH = 250
#: Rows at a time from DuckDB; few, because a batch is held whole before it is cut to the limits.
BATCH_ROWS = 2_048
MAX_MESSAGE = 2_000
#: What comes of parameters and text that DuckDB cannot take, and of Arrow's reader.
PYTHON_ERRORS = (MemoryError, OSError, OverflowError, TypeError, ValueError)


class DatabaseError(Exception):
    """A file could not be attached; `name` is the schema that it was meant for."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class RefusedError(Exception):
    """The SQL is not exactly one SELECT."""


class AttachedFile:
    """One open file as DuckDB reads it. DuckDB's threads share it: seek and read are two calls, so each
    thread has a position of its own."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.local = threading.local()

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        assert whence == os.SEEK_SET, whence
        self.local.position = position
        return position

    def tell(self) -> int:
        return int(self.local.position)

    def read(self, size: int) -> bytes:
        data = os.pread(self.descriptor, size, self.local.position)
        self.local.position += len(data)
        return data

    def close(self) -> None:
        """The descriptor lives as long as the process."""


class AttachedFiles(AbstractFileSystem):  # type: ignore[misc]
    """Files known by number only, `attached://0`; none can be opened after `closed` is set."""

    protocol = "attached"
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.descriptors: dict[str, int] = {}
        self.closed = False

    def add(self, path: str) -> str:
        name = f"{self.protocol}://{len(self.descriptors)}"
        self.descriptors[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return name

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        if self.closed or path not in self.descriptors:
            raise FileNotFoundError(path)
        return {"name": path, "size": os.fstat(self.descriptors[path]).st_size, "type": "file"}

    def open(self, path: str, mode: str = "rb", **_: Any) -> AttachedFile:
        if self.closed or mode != "rb":
            raise PermissionError(f"{path} cannot be opened by a query")
        return AttachedFile(self.descriptors[path])


def limit_process(seconds: float, memory_bytes: int, threads: int) -> None:
    """Put the kernel's limits on this process."""
    _lower(resource.RLIMIT_AS, memory_bytes + RESERVED_BYTES)
    _lower(resource.RLIMIT_CPU, math.ceil(time.process_time() + seconds * threads) + 1)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(kind: int, value: int) -> None:
    """Set a limit for good, unless a stricter one is in force."""
    _, hard = resource.getrlimit(kind)
    if hard == resource.RLIM_INFINITY or value < hard:
        resource.setrlimit(kind, (value, value))


def connect(seconds: float, memory_bytes: int, threads: int) -> duckdb.DuckDBPyConnection:
    """An empty in-memory database that loads nothing, spills nowhere and stops by itself."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "autoload_known_extensions": "false",
            "autoinstall_known_extensions": "false",
            "allow_community_extensions": "false",
            "allow_unsigned_extensions": "false",
            "allow_extension_repositories": "forbidden",
            "allow_persistent_secrets": "false",
            "python_enable_replacements": "false",
            "threads": str(threads),
            "async_threads": "1",
            "max_memory": f"{memory_bytes}B",
        },
    )
    connection.execute("SET temp_directory = ''")
    connection.execute("SET secret_directory = ''")
    connection.execute(f"SET GLOBAL max_execution_time = {math.ceil(seconds * 1000)}")
    connection.execute(f"SET max_expression_depth = {MAX_EXPRESSION_DEPTH}")
    return connection


def attach(connection: duckdb.DuckDBPyConnection, databases: Mapping[str, str]) -> None:
    """Attach each file and expose what its main schema holds as views in a schema of the given name."""
    files = AttachedFiles()
    connection.register_filesystem(files)
    for number, (name, path) in enumerate(databases.items()):
        catalog = f"attached {number}"  # no identifier of the caller's can be equal to it
        schema = _quoted(name or "main")
        try:
            connection.execute(f"ATTACH '{files.add(path)}' AS {_quoted(catalog)} (READ_ONLY)")
            if name:
                connection.execute(f"CREATE SCHEMA {schema}")
            for relation in _relations(connection, catalog):
                source = f"{_quoted(catalog)}.main.{_quoted(relation)}"
                connection.execute(f"CREATE VIEW {schema}.{_quoted(relation)} AS FROM {source}")
        except duckdb.OutOfMemoryException:
            raise
        except (duckdb.Error, OSError) as error:
            raise DatabaseError(name, _message(error)) from error
    files.closed = True


def _relations(connection: duckdb.DuckDBPyConnection, catalog: str) -> list[str]:
    rows = connection.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_catalog = ? AND table_schema = 'main'",
        [catalog],
    ).fetchall()
    return [name for (name,) in rows]


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def lock(connection: duckdb.DuckDBPyConnection) -> None:
    """Close the world outside for good."""
    connection.execute("SET enable_external_access = false")
    connection.execute("SET disabled_filesystems = 'LocalFileSystem'")
    connection.execute("SET lock_configuration = true")
    _lower(resource.RLIMIT_NOFILE, 0)


def one_select(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    """The statement in `sql`. Raises RefusedError unless it is exactly one SELECT."""
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise RefusedError(f"expected one SELECT, got {len(statements)} statements")
    if statements[0].type != duckdb.StatementType.SELECT:
        raise RefusedError(f"only SELECT can be run, got {statements[0].type.name}")
    return statements[0]


def collect(reader: pa.RecordBatchReader, rows: int, size: int) -> tuple[pa.Table, bool]:
    """The first rows of a result, at most `rows` of them and `size` bytes, and whether there were more."""
    batches = []
    for batch in reader:
        fitting = range(1, min(rows, batch.num_rows) + 1)
        kept = batch.slice(0, bisect_right(fitting, size, key=lambda count: batch.slice(0, count).nbytes))
        batches.append(kept)
        if kept.num_rows < batch.num_rows:
            return pa.Table.from_batches(batches, reader.schema), True
        rows -= kept.num_rows
        size -= kept.nbytes
    return pa.Table.from_batches(batches, reader.schema), False


def answer(request: dict[str, Any], out: BinaryIO) -> None:
    """Run the request and write the outcome."""

    def send(**event: Any) -> None:
        out.write(json.dumps(event).encode() + b"\n")
        out.flush()

    limits = request["limits"]
    process_limits = (limits["seconds"], limits["memory_bytes"], limits["threads"])
    limit_process(*process_limits)
    connection = connect(*process_limits)
    try:
        attach(connection, request["databases"])
    except DatabaseError as error:
        send(event="failed", kind="database", name=error.name, message=str(error))
        return
    lock(connection)
    send(event="started")
    try:
        begin = time.perf_counter()
        statement = one_select(connection, request["sql"])
        # Unlike execute(), a relation streams: reading stops at the limits and the rest is never computed.
        reader = connection.sql(statement, params=request["parameters"]).to_arrow_reader(BATCH_ROWS)
        table, truncated = collect(reader, limits["rows"], limits["bytes"])
        send(event="done", seconds=time.perf_counter() - begin, truncated=truncated)
        with pa.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table)
    except (RefusedError, duckdb.Error, pa.ArrowException, *PYTHON_ERRORS) as error:
        send(event="failed", kind=_kind(error), message=_message(error))


def _kind(error: Exception) -> str:
    """What the query met. Errors that come while rows are read have gone through Arrow and are only text."""
    text = str(error)
    if isinstance(error, duckdb.InterruptException) or "INTERRUPT Error" in text:
        return "time"
    if isinstance(error, MemoryError | duckdb.OutOfMemoryException) or "Out of Memory Error" in text:
        return "memory"
    return "sql"


def _message(error: Exception) -> str:
    """What DuckDB said, without the frames of our own code when `AttachedFiles` refused."""
    text = str(error)
    if "Traceback (most recent call last)" in text:
        text = text.strip().splitlines()[-1]
    return text[:MAX_MESSAGE]


def main() -> None:
    line = sys.stdin.buffer.readline()
    if not line:  # never needed
        return
    # Libraries that print would break the protocol: standard output becomes standard error for them.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answer(json.loads(line), out)
    out.flush()
    # A query may still be running behind a truncated result, and there is nothing to tidy up.
    os._exit(0)


if __name__ == "__main__":
    main()
