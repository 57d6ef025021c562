"""Waiting until somebody has written to the metadata database, sooner than by asking it again and again.

SQLite counts the changes that others make to a file, and tells their number without reading a page.
PostgreSQL passes on a `wake` when its transaction is committed; where it does not, for a proxy in
between or a lost connection, waiting is only time.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from datapruner.catalog.database import Database

LOOK_SECONDS = 0.02
_CHANNEL = "datapruner_jobs"
_STOP_SECONDS = 0.1  # for how long a wait for PostgreSQL does not look whether it is to stop


def wake(session: Session) -> None:
    """Wake those who wait for work, once this transaction is committed. On SQLite they see it themselves."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"NOTIFY {_CHANNEL}"))


class Changes:
    """What has been written, or who was woken, since `wait` last returned. For one thread."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._connection = db.engine.raw_connection() if db.is_sqlite else None
        self._listening = _listening(db)
        self._seen = self._number()

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Until something was written since the last call (PostgreSQL: `wake` was called), `stop` is set, or
        `seconds` are over; whether something was."""
        if self._listening is None:
            self._listening = _listening(self._db)
        until = time.monotonic() + seconds
        while not stop.is_set():
            now = self._number()
            if now != self._seen:
                self._seen = now
                return True
            left = max(until - time.monotonic(), 0.0)
            if self._told(min(left, _STOP_SECONDS)):
                return True
            if not left:
                return False
            if self._listening is None:
                stop.wait(left if now is None else min(left, LOOK_SECONDS))
        return False

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._listening is not None:
            self._listening.close()

    def _number(self) -> int | None:
        """SQLite's number of changes by others; None where there is none to be had."""
        if self._connection is None:
            return None
        with contextlib.suppress(sqlite3.Error, SQLAlchemyError):
            cursor = self._connection.cursor()
            try:
                found: int = cursor.execute("PRAGMA data_version").fetchone()[0]
            finally:
                cursor.close()
            return found
        return None

    def _told(self, seconds: float) -> bool:
        """Whether PostgreSQL passes something on within `seconds`."""
        if self._listening is None:
            return False
        from psycopg import Error  # which only those who use PostgreSQL have

        try:
            return any(True for _ in self._listening.notifies(timeout=seconds, stop_after=1))
        except Error:
            self._listening.close()
            self._listening = None
            return False


def _listening(db: Database) -> Any:
    """A connection of PostgreSQL's driver, out of the pool, that hears of `wake`; None without."""
    if db.is_sqlite:
        return None
    from psycopg import Error

    driver: Any = None
    try:
        connection = db.engine.raw_connection()
        driver = connection.driver_connection
        connection.detach()
        driver.autocommit = True
        driver.execute(f"LISTEN {_CHANNEL}")
    except (SQLAlchemyError, Error):
        if driver is not None:
            driver.close()
        return None
    return driver
