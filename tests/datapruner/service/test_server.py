"""The supervisor of the worker processes, with workers that do not live long."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil
import pytest

from datapruner.service import server
from datapruner.service.stopping import Stopping
from datapruner.settings import Settings
from tests.waiting import until


class Stop(threading.Event):
    """Set by itself after some looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.pauses: list[float | None] = []
        self._looks = looks

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout)
        if len(self.pauses) == self._looks:
            self.set()
        return super().wait(timeout)


@pytest.mark.parametrize("python", ["/bin/false", "/nowhere/python"])
def test_workers_that_die_or_cannot_be_started_are_tried_again_without_haste(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PYTHON", (python,))
    stop, before = Stop(looks=6), set(psutil.Process().children())
    server._watch(Settings(home=tmp_path, workers=1), stop)
    assert all(pause is not None and pause > 0.1 for pause in stop.pauses)
    assert set(psutil.Process().children()) <= before


def test_a_signal_that_comes_inside_the_lock_of_an_event_ends_the_service_all_the_same() -> None:
    stopping = Stopping()
    with stopping.leaving._cond:  # type: ignore[attr-defined]
        server._end_soon(stopping)
    until(stopping.ended.is_set)
    assert stopping.leaving.is_set()
