"""Waiting until somebody has written to the metadata database, sooner than by asking it again and again.

SQLite counts the changes that others make to a file, and tells their number without reading a page.
PostgreSQL has no such number: there, waiting is only time.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time

from sqlalchemy.exc import SQLAlchemyError

from datapruner.catalog.database import Database

LOOK_SECONDS = 0.02


class Changes:
    """What has been written since `wait` last returned. For one thread."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._connection = db.engine.raw_connection() if db.is_sqlite else None
        self._seen = self._number()

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Until something was written since the last call, `stop` is set, or `seconds` are over; whether
        something was written."""
        until = time.monotonic() + seconds
        while not stop.is_set():
            now = self._number()
            if now != self._seen:
                self._seen = now
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            stop.wait(left if now is None else min(left, LOOK_SECONDS))
        return False

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

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
