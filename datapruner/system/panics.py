"""Panics of native libraries: what polars, tokenizers and others in Rust raise where they have no error.

A panic is no `Exception`, so nothing that contains failures would contain it. At each entrance (a command, a
call of the library, a job, a request, a task of the service) it becomes an error of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from datapruner.errors import WorkerError


@contextmanager
def contained() -> Iterator[None]:
    """Within the block, or the function that this decorates, a panic is raised as WorkerError."""
    try:
        yield
    except BaseException as error:
        # Every library has a type of its own, of this name, under BaseException.
        if isinstance(error, Exception) or type(error).__name__ != "PanicException":
            raise
        what = (str(error).splitlines() or ["no reason given"])[0]
        raise WorkerError(
            f"a native library panicked: {what}",
            remedy="please report it, with the kinds of columns that the data has",
        ) from error
