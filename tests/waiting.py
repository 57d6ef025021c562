"""Waiting for what a test expects, for as long as a busy machine may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import psutil

PATIENCE = 180.0
"""Seconds after which what did not come is not going to: far more than anything here takes on a busy machine.
Only what is broken takes as long."""
T = TypeVar("T")


def until(condition: Callable[[], T], told: Callable[[], object] = lambda: "waited in vain") -> T:
    """What `condition` gives once it is true. Fails after `PATIENCE` with what `told` gives."""
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, told()
        time.sleep(0.02)
    return value


def has_ended(pid: int) -> bool:
    """Whether the process runs no more, though whoever started it may not have asked yet how it ended."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
