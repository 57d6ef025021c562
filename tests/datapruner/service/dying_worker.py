"""A worker process that halts at a named point of its job and waits there to be killed.

It says on standard output, among the lines of its log, that it halts. Everything else is the real worker on
the real storage.
`calm` names no point; the worker then does what there is to do and ends.
"""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from datapruner.progress import Progress
from datapruner.schemas.jobs import JobResult
from datapruner.service import work
from datapruner.service.context import Context
from datapruner.service.queue import Lease
from datapruner.service.storage import Storage
from datapruner.service.worker import run_worker
from datapruner.settings import Settings
from tests.forked import Forked

KEYS = {
    "corpus": "/corpora/",
    "run file": "/run.duckdb",
    "run document": "/run.json",
    "export": "/exports/",
}
"""Parts of the keys of what `storing …` and `… stored` are about."""
MEASURED_ROWS = 300
HALTS = "halts: "


def halt(point: str) -> None:
    """Say where it stands, and do nothing more."""
    print(f"{HALTS}{point}", flush=True)
    threading.Event().wait()


class HaltingStorage:
    """The storage, until a file is to be stored or has been."""

    def __init__(self, storage: Storage, point: str) -> None:
        self._storage, self._point = storage, point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def publish(self, path: Path, key: str) -> int:
        what = next((name for name, part in KEYS.items() if part in key), None)
        if self._point == f"storing {what}":
            halt(self._point)
        size = self._storage.publish(path, key)
        if self._point == f"{what} stored":
            halt(self._point)
        return size


class HaltingProgress:
    """The listener, until a stage begins, has come to its first report, or so many rows are measured."""

    def __init__(self, progress: Progress, point: str) -> None:
        self._progress, self._point = progress, point
        self._stage = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._progress, name)

    def stage(self, name: str, total: int | None, unit: str) -> None:
        self._progress.stage(name, total, unit)
        self._stage = name
        if self._point == name:
            halt(self._point)

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        self._progress.at(done, total, note)
        if self._point == f"half through {self._stage}":
            halt(self._point)

    def measured(self, rows: int, tokens: int) -> None:
        self._progress.measured(rows, tokens)
        if self._point == "half measured" and rows >= MEASURED_ROWS:
            halt(self._point)


def begun(point: str, said: Path, **settings: object) -> Forked:
    """A worker that halts at the point; `settings` by their names in `Settings`."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("DATAPRUNER_TEACHER_") or not name.startswith("DATAPRUNER_")
    }
    given = {f"DATAPRUNER_{name.upper()}": str(value) for name, value in settings.items()}
    return Forked(work_until, point, environment=ours | given, said=said)


def work_until(point: str) -> None:
    """Do what there is to do, by the settings in the environment."""

    def perform(context: Context, lease: Lease, progress: Progress) -> JobResult:
        storage: Any = HaltingStorage(context.storage, point)
        listener: Any = HaltingProgress(progress, point)
        result = work.perform(replace(context, storage=storage), lease, listener)
        if point == "done":
            halt(point)
        return result

    run_worker(Settings(), perform=perform, once=True)
