"""The throw-away processes: each answers one user query over read-only DuckDB and Parquet files, then ends.

Runs as a script of its own (`python -I child.py`) and imports of datapruner only how answers are written
(`outgoing.py`, `results.py` and what that is made of). This first process imports what a query needs, which
takes ten times as long as the rest, and then forks a child for each set of pipes that it is sent
(`nursery.py` is the other side); before the second it does once what each would have to do itself. A child
does what knows nothing of the request, then waits for one line of JSON, the request (`sandbox.py` builds it),
and one Arrow IPC stream for each inline table. It answers with lines of JSON: `{"event": "started"}` once
everything is locked and the query's time begins to count, then either
`{"event": "failed", "kind": ..., "message": ...}` or `{"event": "done", "seconds": ..., "truncated": ...}`
followed by the answer, a document as it was asked for. Nothing is left to be done about it elsewhere: writing
counts against the query's time and memory too.

Layers, in the order in which they are put on; each was found necessary or cheap:
- the connection has no database of its own, no extensions to load, no Python variables, and spills into files
  that exist in this process alone (`spill.py`);
- the kernel ends this process when whoever asked is gone;
- address space, processor time and file size are limited by the kernel, because some scalar functions heed
  neither DuckDB's time-out nor an interrupt;
- files are opened here and handed to DuckDB by number through `AttachedFiles`: DuckDB would show a real
  path in `duckdb_databases()` (it follows symbolic links and /dev/fd), and would keep it in `allowed_paths`,
  which external access does not close and where a COPY inside a CTE may write. A Parquet file is opened again
  for each statement, so its number is such a path, which gives what its table gives and cannot be written;
- external access, then the local file system, then the configuration are closed, in this order: with
  the file system disabled, external access can no longer be set, and nothing can after the third;
- the kernel gives out no file descriptor from then on: no file, socket or pipe can be opened at all;
- one statement of type SELECT is run; every other type is refused before it is planned.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import resource
import select
import signal
import socket
import sys
import time
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

if __name__ == "__main__":
    # pyarrow and duckdb take these when they find them; that is a third of this process's start, for nothing.
    sys.modules |= dict.fromkeys(("numpy", "pandas", "polars"))  # type: ignore[arg-type]

import duckdb
import pyarrow as pa

from datapruner.query import outgoing, results
from datapruner.query.attached import AttachedFiles
from datapruner.query.spill import SpillFiles
from datapruner.rows.formats import ANSWERS, AnswerFormat
from datapruner.rows.sql_text import identifier

#: Address space that the interpreter, the libraries and the stacks of idle threads reserve, in bytes.
RESERVED_BYTES = 1 << 30
PARQUET = ".parquet"
#: Room for spilled files beyond what DuckDB is told of, in bytes.
SPARE_BYTES = 64 << 20
MAX_EXPRESSION_DEPTH = 250
#: Columns that a statement may give.
MAX_COLUMNS = 4_096
#: Rows at a time from DuckDB; few, because a batch is held whole before it is cut to the limits.
BATCH_ROWS = 2_048
MAX_MESSAGE = 2_000
#: What comes of parameters and text that DuckDB cannot take, and of Arrow's reader.
PYTHON_ERRORS = (MemoryError, OSError, OverflowError, TypeError, ValueError)


class DatabaseError(Exception):
    """A file could not be attached; `number` is its place in the request."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class RefusedError(Exception):
    """The SQL is not exactly one SELECT, or gives too many columns."""


class Sandbox:
    """An empty in-memory database that loads nothing, waiting for its one request."""

    def __init__(self) -> None:
        self.files = AttachedFiles()
        self.connection = duckdb.connect(
            ":memory:",
            config={
                "autoload_known_extensions": "false",
                "autoinstall_known_extensions": "false",
                "allow_community_extensions": "false",
                "allow_unsigned_extensions": "false",
                "allow_extension_repositories": "forbidden",
                "allow_persistent_secrets": "false",
                "python_enable_replacements": "false",
                "threads": "1",
                "async_threads": "1",
            },
        )
        self.connection.execute("SET temp_directory = ''")
        self.connection.execute("SET secret_directory = ''")
        self.connection.execute(f"SET max_expression_depth = {MAX_EXPRESSION_DEPTH}")
        self.connection.register_filesystem(self.files)
        # What comes first costs most: DuckDB parses its own views, and Arrow's reader imports.
        self.fill("warm", pa.table({"x": [1]}))
        self.relations()
        self.connection.sql("FROM warm WHERE x = ?", params=[1]).to_arrow_reader(BATCH_ROWS).read_all()
        self.connection.execute("DROP TABLE warm")

    def write_everything(self, formats: Iterable[AnswerFormat]) -> None:
        """Write every type in these formats: what is read for that from files, such as modules, has to be
        read before there are no more files."""
        relation = outgoing.told(self.connection.sql("FROM test_all_types()"))
        types = [str(kind) for kind in relation.types]
        result = results.QueryResult(relation.to_arrow_reader(BATCH_ROWS).read_all(), False, 0.0, types)
        for kind in formats:
            with suppress(results.UnwritableError):  # not every type has a place in every format
                results.write(result, kind, 1 << 20)

    def limit(self, seconds: float, memory_bytes: int, spill_bytes: int, threads: int, folder: str) -> None:
        """Put DuckDB's and the kernel's limits on everything that follows; it spills to `folder`'s disk."""
        most = spill_bytes + spill_bytes // 4 + SPARE_BYTES  # DuckDB says best that there is no more room
        self.spilled = SpillFiles(folder, most)
        self.connection.register_filesystem(self.spilled)
        self.connection.execute(f"SET temp_directory = '{SpillFiles.FOLDER}'")
        self.connection.execute(f"SET max_temp_directory_size = '{spill_bytes}B'")
        self.connection.execute(f"SET max_memory = '{memory_bytes}B'")
        self.connection.execute(f"SET threads = {threads}")
        self.connection.execute(f"SET GLOBAL max_execution_time = {math.ceil(seconds * 1000)}")
        _lower(resource.RLIMIT_AS, memory_bytes + RESERVED_BYTES)
        _lower(resource.RLIMIT_CPU, math.ceil(time.process_time() + seconds * threads) + 1)
        _lower(resource.RLIMIT_FSIZE, most)
        _lower(resource.RLIMIT_CORE, 0)

    def fill(self, name: str, table: pa.Table) -> None:
        """Make a table of the default schema, copied: nothing of Python is reachable from it."""
        self.connection.register("incoming", table)
        self.connection.execute(f"CREATE TABLE main.{identifier(name)} AS FROM incoming")
        self.connection.unregister("incoming")

    def attach(self, databases: Sequence[tuple[str, str]]) -> None:
        """Attach files, given with the schema in which what their main schema holds is to appear as views."""
        for number, (schema, path) in enumerate(databases):
            try:
                name = self.files.add(path)
                if path.endswith(PARQUET):
                    self.show(schema, path, name)
                else:
                    self.connection.execute(f"ATTACH '{name}' AS {identifier(_catalog(number))} (READ_ONLY)")
            except duckdb.OutOfMemoryException:
                raise
            except (duckdb.Error, OSError) as error:
                raise DatabaseError(number, _message(error)) from error
        relations = self.relations()
        for number, (name, _) in enumerate(databases):
            schema, catalog = identifier(name or "main"), _catalog(number)
            try:
                self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
                for relation in relations.get(catalog, []):
                    source = f"{identifier(catalog)}.main.{identifier(relation)}"
                    self.connection.execute(f"CREATE VIEW {schema}.{identifier(relation)} AS FROM {source}")
            except duckdb.OutOfMemoryException:
                raise
            except duckdb.Error as error:
                raise DatabaseError(number, _message(error)) from error
        if self.files.tables:
            self.connection.execute("SET allowed_paths = $names", {"names": self.files.tables})
        self.files.closed = True

    def show(self, schema: str, path: str, name: str) -> None:
        """Let a Parquet file, opened as `name`, appear in a schema, called as its path is."""
        schema, table = identifier(schema or "main"), identifier(Path(path).stem)
        self.connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        self.connection.execute(f"CREATE VIEW {schema}.{table} AS FROM read_parquet('{name}')")
        self.files.tables.append(name)

    def relations(self) -> dict[str, list[str]]:
        """Names of the tables and views in the main schema of each attached catalog."""
        found: dict[str, list[str]] = {}
        rows = self.connection.execute(
            "SELECT database_name, table_name FROM duckdb_tables() WHERE schema_name = 'main' UNION ALL "
            "SELECT database_name, view_name FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal"
        ).fetchall()
        for catalog, name in rows:
            found.setdefault(catalog, []).append(name)
        return found

    def lock(self) -> None:
        """Close the world outside for good."""
        self.connection.execute("SET enable_external_access = false")
        self.connection.execute("SET disabled_filesystems = 'LocalFileSystem'")
        self.connection.execute("SET lock_configuration = true")
        _lower(resource.RLIMIT_NOFILE, 0)


def _catalog(number: int) -> str:
    return f"attached {number}"  # no identifier of the caller's can be equal to it


def _lower(kind: int, value: int) -> None:
    """Set a limit for good, unless a stricter one is in force."""
    _, hard = resource.getrlimit(kind)
    if hard == resource.RLIM_INFINITY or value < hard:
        resource.setrlimit(kind, (value, value))


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


def answer(
    sandbox: Sandbox, request: Mapping[str, Any], tables: Mapping[str, pa.Table], out: BinaryIO
) -> None:
    """Run the request, over its files and these tables, and write the outcome."""

    def send(**event: Any) -> None:
        out.write(json.dumps(event).encode() + b"\n")
        out.flush()

    limits = request["limits"]
    sandbox.limit(
        limits["seconds"],
        limits["memory_bytes"],
        limits["spill_bytes"],
        limits["threads"],
        request["spill_folder"],
    )
    try:
        sandbox.attach(request["databases"])
    except DatabaseError as error:
        send(event="failed", kind="database", number=error.number, message=str(error))
        return
    for name, table in tables.items():
        sandbox.fill(name, table)
    sandbox.lock()
    send(event="started")
    try:
        begin = time.perf_counter()
        statement = one_select(sandbox.connection, request["sql"])
        # Unlike execute(), a relation streams: reading stops at the limits and the rest is never computed.
        relation = sandbox.connection.sql(statement, params=request["parameters"])
        types = [str(kind) for kind in relation.types]
        if len(types) > MAX_COLUMNS:
            raise RefusedError(f"the statement gives {len(types):,} columns, the most is {MAX_COLUMNS:,}")
        reader = outgoing.told(relation).to_arrow_reader(BATCH_ROWS)
        table, truncated = collect(reader, limits["rows"], limits["bytes"])
        seconds = time.perf_counter() - begin
        result = results.QueryResult(table, truncated, seconds, types)
        document = results.write(result, request["format"], request["most"])
        send(event="done", seconds=seconds, truncated=truncated)
        out.write(document)
    except results.TooLongError:
        send(event="failed", kind="length", message="")
    except (
        RefusedError,
        results.UnwritableError,
        duckdb.Error,
        pa.ArrowException,
        *PYTHON_ERRORS,
    ) as error:
        kind = "memory" if sandbox.spilled.is_full else _kind(error)
        send(event="failed", kind=kind, message=_message(error))


def _kind(error: Exception) -> str:
    """What the query met. Errors that come while rows are read have gone through Arrow and are only text."""
    text = str(error)
    if isinstance(error, duckdb.InterruptException) or "INTERRUPT Error" in text:
        return "time"
    if isinstance(error, MemoryError | duckdb.OutOfMemoryException) or "Out of Memory Error" in text:
        return "memory"
    return "format" if isinstance(error, results.UnwritableError) else "sql"


def _message(error: Exception) -> str:
    """What DuckDB said, without the frames of our own code when `AttachedFiles` refused."""
    text = str(error)
    if "Traceback (most recent call last)" in text:
        text = text.strip().splitlines()[-1]
    return text[:MAX_MESSAGE]


def end_with(source: BinaryIO) -> None:
    """Have the kernel end this process when the other end of its input is closed, whatever it is doing."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(source, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(source, fcntl.F_SETFL, fcntl.fcntl(source, fcntl.F_GETFL) | os.O_ASYNC)
    waiting = select.poll()
    waiting.register(source, 0)
    if waiting.poll(0):  # it was closed before
        os._exit(1)


def serve(*, prepared: bool) -> None:
    """Answer the query on standard input, if one comes. `prepared`: every format was written before."""
    sandbox = Sandbox()
    source = os.fdopen(0, "rb")
    line = source.readline()
    if not line:  # never needed
        return
    request = json.loads(line)
    if not prepared:
        sandbox.write_everything([request["format"]])
    tables = {name: pa.ipc.open_stream(source).read_all() for name in request["tables"]}
    end_with(source)
    # Libraries that print would break the protocol: standard output becomes standard error for them.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answer(sandbox, request, tables, out)
    out.flush()


@dataclass(frozen=True, slots=True)
class Running:
    """A child that has not ended: process id, a descriptor of the process and one for its exit status."""

    process: int
    handle: int
    status: int


class Nursery:
    """Forks children when told, ends them when told, and tells how they ended.

    A message is a child's number. With pipes, the child's three standard ones and one for its exit status,
    it is to be started; without, it is to be killed. Ends of children are waited for beside messages, by a
    descriptor of each: a signal handler would come between any two steps of the rest.
    """

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.running: dict[int, Running] = {}
        self.ready = select.poll()
        self.started = 0
        self.prepared = False

    def run(self) -> None:
        self.ready.register(self.channel, select.POLLIN)
        while True:
            for descriptor, _ in self.ready.poll():
                if descriptor != self.channel.fileno():
                    self.reap(descriptor)
                elif not self.obey():
                    return

    def obey(self) -> bool:
        """Do what the next message says; False when whoever sends them is gone."""
        message, pipes, _, _ = socket.recv_fds(self.channel, 32, 4)
        if not message:
            return False
        number = int(message)
        if pipes:
            self.start(number, pipes)
        elif number in self.running:
            signal.pidfd_send_signal(self.running[number].handle, signal.SIGKILL)
        return True

    def start(self, number: int, pipes: Sequence[int]) -> None:
        *standard, status = pipes
        if self.started == 1:
            self.prepare()
        self.started += 1
        try:
            process = os.fork()
        except OSError as error:  # the others go on
            os.write(standard[2], f"no process can be started: {error}".encode())
            os.close(status)
        else:
            if process == 0:
                others = [end for child in self.running.values() for end in (child.handle, child.status)]
                be_child(standard, [*pipes, *others], prepared=self.prepared)
            self.running[number] = Running(process, os.pidfd_open(process), status)
            self.ready.register(self.running[number].handle, select.POLLIN)
        for descriptor in standard:
            os.close(descriptor)

    def prepare(self) -> None:
        """Pay what only the first sandbox of a process costs. Not for a single child, which has to pay it
        anyway: whoever asks only one thing waits for it."""
        first = Sandbox()
        first.write_everything(ANSWERS)
        first.connection.close()
        self.prepared = True

    def reap(self, handle: int) -> None:
        [(number, child)] = [item for item in self.running.items() if item[1].handle == handle]
        del self.running[number]
        self.ready.unregister(handle)
        _, status = os.waitpid(child.process, 0)
        with suppress(BrokenPipeError):  # nobody wants to know
            os.write(child.status, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(child.status)
        os.close(handle)


def be_child(standard: Sequence[int], others: Sequence[int], *, prepared: bool) -> NoReturn:
    """What a forked process does, with these pipes, and without its parent's other descriptors."""
    try:
        for number, descriptor in enumerate(standard):
            os.dup2(descriptor, number)
        for descriptor in others:
            os.close(descriptor)
        serve(prepared=prepared)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(1)
    # A query may still be running behind a truncated result, and there is nothing to tidy up.
    os._exit(0)


if __name__ == "__main__":
    Nursery(socket.socket(fileno=0)).run()
