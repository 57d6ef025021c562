"""How far a job is, and whether it is to stop: what a worker gives to the work that it does.

Notable choices:
- work is stopped where it reports: each call may raise, and goes on raising once it did, so that work which
  catches too much still comes to its end at the next one;
- rates and the time left are reckoned from the first report of a stage, which leaves out loading the model.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from datapruner.schemas.jobs import Progress
from datapruner.service.queue import Released

_NOTES = 50
_LEAST_SECONDS = 0.5  # rates over less time than this are noise


class JobProgress:
    """A `datapruner.progress.Progress` that remembers. Safe to call from several threads.

    Every method but `snapshot`, `interrupt` and `interruption` raises what `interruption` gives, if any.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._lock = threading.Lock()
        self._interruption: Exception | None = None
        self._now: Progress | None = None
        self._first: tuple[float, int] | None = None  # time and amount of the stage's first report
        self._first_tokens: tuple[float, int] | None = None

    def stage(self, name: str, total: int | None, unit: str) -> None:
        self.check()
        with self._lock:
            before = self._now or Progress(stage="")
            kept = before.model_dump(include={"rows", "tokens", "tokens_per_second", "notes"})
            self._now = Progress(stage=name, total=total, unit=unit, **kept)
            self._first = None

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        self.check()
        with self._lock:
            if self._now is None:
                return
            self._now.done = done
            if total is not None:
                self._now.total = total
            now = time.monotonic()
            self._first = self._first or ((now, done) if done else None)
            rate = _rate(self._first, now, done)
            if rate and self._now.total is not None:
                self._now.eta_seconds = round(max(self._now.total - done, 0) / rate, 1)

    def measured(self, rows: int, tokens: int) -> None:
        self.check()
        with self._lock:
            if self._now is None:
                return
            self._now.rows, self._now.tokens = rows, tokens
            now = time.monotonic()
            self._first_tokens = self._first_tokens or (now, tokens)
            rate = _rate(self._first_tokens, now, tokens)
            if rate:
                self._now.tokens_per_second = round(rate, 1)

    def note(self, text: str) -> None:
        self.check()
        with self._lock:
            if self._now is not None:
                self._now.notes = [*self._now.notes, text][-_NOTES:]

    def check(self) -> None:
        """Raise Cancelled, Released or LeaseLostError when the work is to stop."""
        if (reason := self.interruption) is not None:
            raise reason

    def interrupt(self, reason: Exception) -> None:
        """Let every call from now on raise `reason`; the first reason stays."""
        with self._lock:
            self._interruption = self._interruption or reason

    @property
    def interruption(self) -> Exception | None:
        """Why the work is to stop, if it is."""
        with self._lock:
            return self._interruption or (Released() if self._stop.is_set() else None)

    def snapshot(self) -> dict[str, Any] | None:
        """A `schemas.jobs.Progress`; None before the first stage."""
        with self._lock:
            return None if self._now is None else self._now.model_dump(mode="json")


def _rate(first: tuple[float, int] | None, now: float, amount: int) -> float | None:
    """Amount per second since the first report."""
    if first is None or now - first[0] < _LEAST_SECONDS:
        return None
    return (amount - first[1]) / (now - first[0])
