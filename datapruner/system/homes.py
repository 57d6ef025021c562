"""Who uses a home folder: processes that read or write there, or the one that takes away what nobody needs.

A process that has used a home counts as using it until it ends, as what it holds (a result, a corpus) is read
when it is asked for. The system knows of processes that were killed, so nothing has to be put right after
them.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_FILE = ".in-use"
_guard = threading.Lock()
_held: dict[Path, int] = {}


def use(home: Path) -> None:
    """Have nothing taken away from `home` until this process ends; waits while something is.

    A home that cannot be written is not cleaned either, and needs none of this; nor is one on Windows, which
    has no such lock.
    """
    if sys.platform == "win32":
        return
    place = home.resolve()
    with _guard:
        if place not in _held:
            with suppress(OSError):
                handle = os.open(place / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                fcntl.flock(handle, fcntl.LOCK_SH)
                _held[place] = handle


@contextmanager
def alone(home: Path) -> Iterator[bool]:
    """Whether no other process uses `home`, nor will before the block ends. Raises OSError."""
    if sys.platform == "win32":
        yield False
        return
    place = home.resolve()
    use(place)
    with _guard:
        handle = _held.get(place)
        if handle is None:  # the file cannot be made
            yield False
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(handle, fcntl.LOCK_SH)  # which a refused change of the lock lets go
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(handle, fcntl.LOCK_SH)
