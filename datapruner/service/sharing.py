"""What a job works out on its machine and others may go on from: signals, and trainings of evaluations.

It is pulled from storage before the work and pushed now and then during it, so that whoever takes the job up
again, on whichever machine, does little of it twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from datapruner.measuring.signal_cache import ProxyKey
from datapruner.progress import Progress
from datapruner.service.context import Context

_PUSH_SECONDS = 30.0


def signals_prefix(project_id: str, key: ProxyKey) -> str:
    """Where in storage the signals of a project and proxy key are. Projects share none: how fast a run is
    would tell what others have measured."""
    return f"projects/{project_id}/signals/{key.digest()}"


class Sharing:
    """Passes progress on, and now and then what was measured to the storage, for others to find."""

    def __init__(self, listener: Progress, context: Context, prefixes: Sequence[str]) -> None:
        self._listener, self._context, self._prefixes = listener, context, prefixes
        self._pushed = time.monotonic()

    def stage(self, name: str, total: int | None, unit: str) -> None:
        self._listener.stage(name, total, unit)

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        self._listener.at(done, total, note)
        if time.monotonic() - self._pushed > _PUSH_SECONDS:
            self._pushed = time.monotonic()
            for prefix in self._prefixes:
                self._context.storage.push(prefix)

    def measured(self, rows: int, tokens: int) -> None:
        self._listener.measured(rows, tokens)

    def note(self, text: str) -> None:
        self._listener.note(text)
