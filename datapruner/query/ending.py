"""Ending a statement before its time: the one who asked has gone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class EndedError(Exception):
    """The statement was ended; nobody waits for its answer."""


class Ending:
    """What ends one statement, whether it waits for its turn or is at work. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wakes: list[Callable[[], None]] = []
        self._come = False

    @property
    def has_come(self) -> bool:
        return self._come

    def end(self) -> None:
        """End the statement, or what is begun of it later."""
        with self._lock:
            self._come = True
            wakes = list(self._wakes)
        for wake in wakes:  # without the lock, as one may wait for who wants to have it
            wake()

    @contextlib.contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Call `wake` when the end comes while the block runs. It may also be called a moment later.

        Raises EndedError when it has come before, and instead of what the block raises on account of it.
        """
        with self._lock:
            if self._come:
                raise EndedError
            self._wakes.append(wake)
        try:
            yield
        except Exception as error:
            if self._come:
                raise EndedError from error
            raise
        finally:
            with self._lock:
                self._wakes.remove(wake)
