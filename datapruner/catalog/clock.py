"""The time, as all hosts of a service agree on it: by the clock of the PostgreSQL server that they share.

Leases, fire times and expiries are written by one host and judged by another, whose own clocks may differ. So
each process asks the server now and then how far its clock is off, and goes by the server's. SQLite is
used on one machine, which has one clock.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

_ASKED_EVERY = 30.0
_SQL = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_ahead = 0
"""Microseconds by which the server's clock is ahead of this machine's."""
_asked: float | None = None


def microseconds() -> int:
    """Now, since 1970 in UTC."""
    return _own() + _ahead


def follow(connection: Any, *_: Any) -> None:
    """Go by the clock of the server at the other end of a connection of PostgreSQL's driver, outside of any
    transaction of its. What is known of it is good for a while.

    A connection that breaks just now is left to whoever asked for it, whose own statement meets that."""
    import psycopg

    global _ahead, _asked
    if _asked is not None and time.monotonic() - _asked < _ASKED_EVERY:
        return
    before = _own()
    try:
        told = connection.execute(_SQL).fetchone()[0]
        connection.rollback()
    except psycopg.Error:
        with suppress(psycopg.Error):
            connection.rollback()
        return
    _ahead = told - (before + _own()) // 2
    _asked = time.monotonic()


def _own() -> int:
    return time.time_ns() // 1000
