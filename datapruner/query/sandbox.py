"""Run a user's SELECT over published DuckDB files, in a process that cannot harm them or the machine.

Notable choices:
- DuckDB inside one process cannot be made safe, so every query has a process of its own (`child.py`, which
  lists the layers); this side only sends the request, reads the answer and kills.
- The child gets its time from the moment it is locked; starting it does not count.
- Whatever the child says is bounded here too: it is assumed to be under the query's control.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from datapruner.errors import DataprunerError, InputError, UsageError, WorkerError

#: Seconds that a child may need until it is locked and ready, on a busy machine.
START_SECONDS = 30.0
#: Seconds after the query's own time for DuckDB to notice, and for the result to come through.
GRACE_SECONDS = 1.0
#: The longest protocol line; child messages are cut well below it.
MAX_LINE = 1 << 16

_CHILD = Path(__file__).with_name("child.py")
_ENVIRONMENT = {
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
    # Both keep the reserved address space, which is limited, close to what is used.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
}
#: Schemas and catalogs that DuckDB has of itself.
_RESERVED = {"main", "memory", "temp", "system", "information_schema", "pg_catalog"}


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """What one query may use.

    `rows` and `bytes` (Arrow's size in memory) bound the result, which is cut there; a first row larger than
    `bytes` leaves it empty. `seconds` is wall time, of planning and running. `memory_bytes`
    bounds DuckDB's memory; the process may reserve 1 GiB more for itself. `threads` run the query.
    """

    rows: int = 10_000
    bytes: int = 64 << 20
    seconds: float = 10.0
    memory_bytes: int = 1 << 30
    threads: int = 2

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < math.inf:
                raise UsageError(f"query limit {name} is {value}", remedy="give a number above zero")


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Rows of a query; `truncated` when there were more than the limits allow. `seconds` it took to run."""

    table: pa.Table
    truncated: bool
    seconds: float


def run_sql(
    sql: str,
    databases: Mapping[str, Path],
    *,
    parameters: Sequence[Any] | Mapping[str, Any] | None = None,
    limits: QueryLimits = QueryLimits(),
) -> QueryResult:
    """Run one SELECT and return its first rows.

    `databases` maps a schema name to a DuckDB file that nothing writes to any more. Tables and views of the
    file's main schema appear in the schema of that name; the name "" stands for the default schema.
    `parameters` fill `?`, `$1` (a sequence) or `$name` (a mapping) and are JSON values. Dates and times are
    in UTC.

    Raises UsageError, with DuckDB's message, when `sql` is not one valid SELECT, or takes more time or memory
    than `limits` allow; InputError when a file cannot be read; WorkerError when the process fails otherwise.
    """
    request = _request(sql, databases, parameters, limits)
    command = [sys.executable, "-I", str(_CHILD)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_ENVIRONMENT,
        cwd="/",
        start_new_session=True,
    ) as process:
        try:
            return _converse(process, request, databases, limits)
        finally:
            _kill(process)


def _request(
    sql: str,
    databases: Mapping[str, Path],
    parameters: Sequence[Any] | Mapping[str, Any] | None,
    limits: QueryLimits,
) -> bytes:
    for name, path in databases.items():
        if name and (not name.isidentifier() or name.lower() in _RESERVED):
            raise UsageError(
                f"{name!r} cannot be the schema of {path}", remedy="use a plain, unreserved name"
            )
        log = Path(f"{path}.wal")
        if log.exists():
            raise InputError(
                f"{log}: the database was not closed", remedy="open it once to finish its writes"
            )
    request = {
        "sql": sql,
        "databases": {name: str(Path(path).absolute()) for name, path in databases.items()},
        "parameters": parameters,
        "limits": asdict(limits),
    }
    try:
        return json.dumps(request).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"query parameters: {error}", remedy="give JSON values; pass dates as text and cast them in SQL"
        ) from error


def _converse(
    process: subprocess.Popen[bytes], request: bytes, databases: Mapping[str, Path], limits: QueryLimits
) -> QueryResult:
    assert process.stdin is not None
    assert process.stdout is not None
    with _killed_after(process, START_SECONDS):
        # A child that is gone already is noticed by its silence.
        with suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(request)
        event = _event(process.stdout)
    body, most = b"", 2 * limits.bytes + (16 << 20)  # column names and padding come on top of the values
    if event is not None and event["event"] == "started":
        with _killed_after(process, limits.seconds + GRACE_SECONDS) as expired:
            event = _event(process.stdout)
            body = process.stdout.read(most + 1)
        if expired.is_set():
            raise _too_long(limits)
    if event is None:
        raise _died(process, limits)
    if event["event"] == "done":
        return _result(event, body, most)
    raise _failure(event, databases, limits)


def _event(stream: IO[bytes]) -> dict[str, Any] | None:
    """The next line of the protocol, None when the child has gone."""
    line = stream.readline(MAX_LINE)
    if not line.endswith(b"\n"):
        return None
    event: dict[str, Any] = json.loads(line)
    return event


def _result(event: Mapping[str, Any], body: bytes, most: int) -> QueryResult:
    if len(body) > most:
        raise UsageError("the result's columns alone exceed the limit", remedy="select fewer columns")
    try:
        table = pa.ipc.open_stream(body).read_all()
    except pa.ArrowInvalid as error:
        raise WorkerError(f"the query process sent a broken result: {error}") from error
    return QueryResult(table, event["truncated"], event["seconds"])


def _failure(event: Mapping[str, Any], databases: Mapping[str, Path], limits: QueryLimits) -> DataprunerError:
    kind, message = event["kind"], event["message"]
    if kind == "time":
        return _too_long(limits)
    if kind == "memory":
        return _too_large(limits)
    if kind == "database":
        return InputError(
            f"{databases[event['name']]}: cannot be read as a DuckDB file: {message}",
            remedy="give one that DuckDB wrote and closed",
        )
    return UsageError(message, remedy="give one SELECT; `SHOW ALL TABLES` lists what it can read")


def _too_long(limits: QueryLimits) -> UsageError:
    return UsageError(
        f"the query took longer than {limits.seconds:g} s",
        remedy="filter or aggregate earlier, or raise the time limit",
    )


def _too_large(limits: QueryLimits) -> UsageError:
    return UsageError(
        f"the query needs more than {limits.memory_bytes >> 20} MiB of memory",
        remedy="filter or aggregate earlier, or raise the memory limit",
    )


def _died(process: subprocess.Popen[bytes], limits: QueryLimits) -> DataprunerError:
    """Why the child ended without an answer."""
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        _kill(process)
    assert process.stderr is not None
    said = process.stderr.read(MAX_LINE).decode(errors="replace").strip()
    if process.returncode == -signal.SIGXCPU:
        return _too_long(limits)
    if "bad_alloc" in said or "MemoryError" in said:
        return _too_large(limits)
    return WorkerError(f"the query process ended with status {process.returncode}: {said[-500:]}")


@contextmanager
def _killed_after(process: subprocess.Popen[bytes], seconds: float) -> Iterator[threading.Event]:
    """Kill the child if the block takes longer; the event tells whether that happened."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(seconds, expire)
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()
        timer.join()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the child and whatever it may have started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
