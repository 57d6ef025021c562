"""Times that people read say by which clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from datapruner.commands import answers


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        ("Europe/Berlin", "2026-10-25 02:30+02:00 Europe/Berlin"),
        ("Asia/Kolkata", "2026-10-25 06:00+05:30 Asia/Kolkata"),
        ("UTC", "2026-10-25 00:30+00:00 UTC"),
        ("Mars/Olympus_Mons", "2026-10-25 00:30+00:00"),
        ("../etc/passwd", "2026-10-25 00:30+00:00"),
    ],
)
def test_a_time_is_shown_on_the_clock_of_its_zone(zone: str, shown: str) -> None:
    assert answers.when(datetime(2026, 10, 25, 0, 30, tzinfo=UTC), zone) == shown


def test_the_hour_that_a_clock_shows_twice_is_told_apart() -> None:
    later = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert answers.when(later, "Europe/Berlin") == "2026-10-25 02:30+01:00 Europe/Berlin"


def test_other_times_are_shown_on_the_clock_here_with_its_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert answers.when(datetime(2026, 7, 1, 0, 30, tzinfo=UTC)) == "2026-06-30 20:30-04:00"
    finally:
        monkeypatch.undo()
        time.tzset()
