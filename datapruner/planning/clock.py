"""How long the passes of a run took, heard from its progress."""

from __future__ import annotations

import time

from datapruner.progress import Progress

_PASSES = ("measuring", "tokenising", "embedding", "rewarding")
"""What the names of their stages begin with."""


class PassClock:
    """Passes on what it hears, and adds up how long the stages were that are passes."""

    def __init__(self, listener: Progress) -> None:
        self.listener = listener
        self.seconds = 0.0
        self._since: float | None = None

    def stage(self, name: str, total: int | None, unit: str) -> None:
        now = time.monotonic()
        if self._since is not None:
            self.seconds += now - self._since
        self._since = now if name.startswith(_PASSES) else None
        self.listener.stage(name, total, unit)

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        self.listener.at(done, total, note)

    def measured(self, rows: int, tokens: int) -> None:
        self.listener.measured(rows, tokens)

    def note(self, text: str) -> None:
        self.listener.note(text)
