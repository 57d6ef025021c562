"""When a process of ours looks for garbage: not while it starts."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def put_off() -> Iterator[None]:
    """Look for no garbage in this block, nor ever again among what it leaves behind.

    Nearly all that is made while a process starts stays: to look through it again and again is a fifth of the
    start of a service. Only when the process ends is it let go of: what DuckDB has made would else be said to
    have leaked.
    """
    gc.disable()
    atexit.register(gc.unfreeze)
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
