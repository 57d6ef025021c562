"""What a worker knows of the work it does, and how it stops it."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from datapruner.schemas.jobs import Progress
from datapruner.service import job_progress
from datapruner.service.job_progress import JobProgress
from datapruner.service.queue import Cancelled, LeaseLostError, Released


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def progress(stop: threading.Event) -> JobProgress:
    return JobProgress(stop)


@dataclass
class Clock:
    """Stands in for the module `time` where time is to pass by the test's word only."""

    now: float = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(job_progress, "time", clock)
    return clock


def _now(progress: JobProgress) -> Progress:
    return Progress.model_validate(progress.snapshot())


def test_nothing_is_known_before_the_first_stage(progress: JobProgress) -> None:
    progress.at(3)
    progress.measured(1, 2)
    assert progress.snapshot() is None


def test_a_stage_begins_anew_and_keeps_what_was_measured_and_noted(progress: JobProgress) -> None:
    progress.stage("measuring", 10, "samples")
    progress.at(4)
    progress.measured(4, 900)
    progress.note("alpaca rows")
    assert _now(progress).model_dump(exclude={"tokens_per_second", "eta_seconds"}) == {
        "stage": "measuring",
        "done": 4,
        "total": 10,
        "unit": "samples",
        "rows": 4,
        "tokens": 900,
        "notes": ["alpaca rows"],
    }
    progress.stage("publishing", None, "")
    after = _now(progress)
    assert (after.stage, after.done, after.total) == ("publishing", 0, None)
    assert (after.rows, after.tokens, after.notes) == (4, 900, ["alpaca rows"])


def test_the_rate_and_the_time_left_are_of_the_time_since_the_first_report(
    progress: JobProgress, clock: Clock
) -> None:
    progress.stage("measuring", 100, "samples")
    clock.now += 30  # as if the model were being loaded
    progress.measured(10, 1000)
    progress.at(10)
    clock.now += 0.4  # too short a time to reckon with
    progress.measured(11, 1100)
    progress.at(11)
    assert (_now(progress).tokens_per_second, _now(progress).eta_seconds) == (None, None)
    clock.now += 1.6
    progress.measured(20, 2000)
    progress.at(20)
    assert (_now(progress).tokens_per_second, _now(progress).eta_seconds) == (500, 16)


def test_a_total_that_becomes_known_is_kept(progress: JobProgress) -> None:
    progress.stage("reading", None, "rows")
    progress.at(1, 50)
    progress.at(2)
    assert (_now(progress).done, _now(progress).total) == (2, 50)


def test_notes_do_not_grow_without_bound(progress: JobProgress) -> None:
    progress.stage("reading", None, "rows")
    for number in range(500):
        progress.note(str(number))
    notes = _now(progress).notes
    assert len(notes) <= 50
    assert notes[-1] == "499"


def test_every_report_raises_once_the_work_is_to_stop(progress: JobProgress, stop: threading.Event) -> None:
    progress.stage("measuring", 10, "samples")
    progress.check()
    stop.set()
    for _ in range(2):
        for report in (
            progress.check,
            lambda: progress.stage("next", None, ""),
            lambda: progress.at(1),
            lambda: progress.measured(1, 1),
            lambda: progress.note("text"),
        ):
            with pytest.raises(Released):
                report()
    assert _now(progress).stage == "measuring"


def test_the_first_reason_to_stop_counts(progress: JobProgress, stop: threading.Event) -> None:
    progress.interrupt(LeaseLostError("retaken"))
    progress.interrupt(Cancelled())
    stop.set()
    with pytest.raises(LeaseLostError):
        progress.check()
