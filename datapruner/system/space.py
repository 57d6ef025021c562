"""Want of space: how it is known, whichever library met it and whatever its error was wrapped in.

Notable choice: DuckDB, polars and processes of ours tell it in words alone, so their words are read. Those of
our own errors are not, as they may quote a row; what caused them is looked at instead.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import polars as pl

from datapruner.errors import DataprunerError, StorageError

_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_FULL = os.strerror(errno.ENOSPC)
_WORDS = {os.strerror(number): os.strerror(number) for number in _NUMBERS} | {
    "max_temp_directory_size": _FULL,
    "database or disk is full": _FULL,
    "attempt to write a readonly database": os.strerror(errno.EROFS),
}
_SPEAKING = (
    OSError,
    duckdb.OperationalError,
    duckdb.FatalException,
    duckdb.InternalError,
    pl.exceptions.PolarsError,
    sqlite3.OperationalError,
)
_REMEDY = "free or enlarge the storage, or check that it takes writes"


class NoSpaceError(StorageError):
    """A disk is full, its quota is used up, or it takes no writes. Trying again is worth a wait."""


@contextmanager
def needed(what: str) -> Iterator[None]:
    """Tell a want of space inside the block as NoSpaceError about `what`; other errors pass."""
    try:
        yield
    except Exception as error:
        reason = None if isinstance(error, NoSpaceError) else _reason(error)
        if reason is None:
            raise
        raise NoSpaceError(f"{what} cannot be written: {reason}", remedy=_REMEDY) from error


def told(error: Exception) -> Exception:
    """`error` itself, or a NoSpaceError in its place when it comes from a want of space."""
    reason = None if isinstance(error, NoSpaceError) else _reason(error)
    if reason is None:
        return error
    what = error.message if isinstance(error, DataprunerError) else "files cannot be written"
    wanting = NoSpaceError(what if reason in what else f"{what}: {reason}", remedy=_REMEDY)
    wanting.__cause__ = error
    return wanting


def _reason(error: BaseException | None) -> str | None:
    """What a disk refused, in the system's words, if that is what caused the error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NUMBERS:
            return os.strerror(error.errno)
        if isinstance(error, _SPEAKING):
            said = str(error)
            found = next((reason for words, reason in _WORDS.items() if words in said), None)
            if found is not None:
                return found
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None
