"""Sessions on the metadata database: SQLite by default, PostgreSQL by URL, the same code for both.

Notable choices:
- on SQLite, what may write begins with BEGIN IMMEDIATE: a transaction that first reads and then writes would
  otherwise fail at once when another has written in between, however long the busy time-out is;
- WAL lets readers go on while one writes; `synchronous=FULL` keeps what was acknowledged through a power cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from datapruner.catalog import clock
from datapruner.errors import UsageError

_BUSY_SECONDS = 60
_CONNECT_SECONDS = 10
_KEPT = 10  # connections
_MORE_ON_SQLITE = 40  # one for each thread that answers requests
_MORE_ON_POSTGRES = 10  # its server has a hundred for all hosts; who gets none waits a moment
_ENGINE: dict[str, Any] = {
    "pool_size": _KEPT,
    "hide_parameters": True,  # errors are logged, and some parameters are secrets
}
_REMEDY = "give sqlite:///… or postgresql://…"


class Database:
    """The engine and its transactions. Safe to share between threads, not across a fork."""

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError) as error:  # its message may hold a password
            raise UsageError("the database URL cannot be read", remedy=_REMEDY) from error
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if not self.is_sqlite and parsed.get_backend_name() != "postgresql":
            raise UsageError(
                f"no support for a {parsed.get_backend_name()} database",
                remedy=_REMEDY,
            )
        if self.is_sqlite:
            self.engine = create_engine(
                parsed, connect_args={"timeout": _BUSY_SECONDS}, max_overflow=_MORE_ON_SQLITE, **_ENGINE
            )
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            try:
                self.engine = create_engine(
                    parsed,
                    connect_args={"connect_timeout": _CONNECT_SECONDS},
                    pool_pre_ping=True,
                    max_overflow=_MORE_ON_POSTGRES,
                    **_ENGINE,
                )
            except ModuleNotFoundError as error:
                raise UsageError(
                    "PostgreSQL needs the psycopg package", remedy="pip install 'datapruner[postgres]'"
                ) from error
            event.listen(self.engine, "checkout", clock.follow)
        self._writing = self.engine.execution_options(immediate=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads; what it returns stays usable afterwards."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that is committed when the block ends well."""
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        self.engine.dispose()


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions of its own
    busy = f"busy_timeout={_BUSY_SECONDS}000"
    for pragma in (busy, "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
