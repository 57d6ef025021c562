"""Fire times on the wall clock, around the changes of the clocks too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.catalog.models import utcnow
from datapruner.errors import UsageError
from datapruner.service.fire_times import fire_times, next_fire
from tests.datapruner.service.scheduling import utc


def times(cron: str, zone: str, after: str, count: int) -> list[str]:
    found = islice(fire_times(cron, zone, utc(after)), count)
    return [m.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M %Z") for m in found]


def between(cron: str, zone: str, begin: datetime, end: datetime) -> list[datetime]:
    return list(takewhile(lambda moment: moment < end, fire_times(cron, zone, begin)))


def test_a_time_that_the_clock_skips_fires_once_after_the_gap() -> None:
    assert times("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", 3) == [
        "03-29 03:00 CEST",
        "03-30 02:30 CEST",
        "03-31 02:30 CEST",
    ]
    assert times("*/15 2 * * *", "Europe/Berlin", "2026-03-28T12:00", 3) == [
        "03-29 03:00 CEST",
        "03-30 02:00 CEST",
        "03-30 02:15 CEST",
    ]


def test_a_time_that_the_clock_shows_twice_fires_the_first_time_only() -> None:
    assert times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", 2) == [
        "10-25 02:30 CEST",
        "10-26 02:30 CET",
    ]
    assert times("*/30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", 3) == [
        "10-25 02:00 CEST",
        "10-25 02:30 CEST",
        "10-26 02:00 CET",
    ]


def test_between_the_two_showings_of_a_time_the_next_is_tomorrow() -> None:
    assert times("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10", 1) == ["10-26 02:30 CET"]


#: Zones with both changes of their clocks in 2026, in UTC. Lord Howe's are of half an hour, Havana's and
#: Cairo's at midnight, Dublin's winter time is the one that saves daylight.
CHANGES = {
    "Europe/Berlin": ("2026-03-29T01:00", "2026-10-25T01:00"),
    "America/New_York": ("2026-03-08T07:00", "2026-11-01T06:00"),
    "Australia/Lord_Howe": ("2026-10-03T15:30", "2026-04-04T15:00"),
    "America/Havana": ("2026-03-08T05:00", "2026-11-01T05:00"),
    "Africa/Cairo": ("2026-04-23T22:00", "2026-10-29T21:00"),
    "Europe/Dublin": ("2026-03-29T01:00", "2026-10-25T01:00"),
}
EVERY_HOUR = [
    "*",
    "*/1",
    "0-23",
    "0-23/1",
    "00-23",
    "*,5",
    "0-11,12-23",
    ",".join(map(str, range(24))),
    "0/1",
]
SAME = [
    EVERY_HOUR,
    ["*/2", "0-23/2", "0/2", "0-22/2", ",".join(map(str, range(0, 24, 2)))],
    ["1-3", "1,2,3", "1-3/1", "3,1,2", "1,2-3"],
    ["0-22", "0-21,22", ",".join(map(str, range(23)))],
    ["2", "02", "2-2", "2,2"],
]


@pytest.mark.parametrize("minutes", ["5", "*/15", "0", "*"])
@pytest.mark.parametrize("zone", CHANGES)
@pytest.mark.parametrize("hours", SAME, ids=lambda hours: hours[0])
def test_spellings_of_the_same_hours_fire_at_the_same_times_around_both_changes(
    hours: list[str], zone: str, minutes: str
) -> None:
    for change in map(utc, CHANGES[zone]):
        begin, end = change - timedelta(hours=5), change + timedelta(hours=9)
        found = [between(f"{minutes} {hour} * * *", zone, begin, end) for hour in hours]
        assert [each for each in found if each != found[0]] == []
        assert all(a < b for a, b in pairwise(found[0]))


@pytest.mark.parametrize("zone", [zone for zone in CHANGES if zone != "Australia/Lord_Howe"])
@pytest.mark.parametrize("hour", EVERY_HOUR)
def test_a_cron_of_every_hour_leaves_no_hour_out_and_doubles_none(hour: str, zone: str) -> None:
    for change in map(utc, CHANGES[zone]):
        found = list(islice(fire_times(f"5 {hour} * * *", zone, change - timedelta(hours=4)), 9))
        assert {b - a for a, b in pairwise(found)} == {timedelta(hours=1)}


def test_where_clocks_move_by_half_an_hour_a_cron_of_every_hour_follows_its_minute() -> None:
    assert times("5 */1 * * *", "Australia/Lord_Howe", "2026-10-03T14:00", 3) == [
        "10-04 01:05 +1030",
        "10-04 03:05 +11",
        "10-04 04:05 +11",
    ]


@pytest.mark.parametrize("minute", ["0-59", "*/1", "*"])
def test_a_cron_of_every_minute_fires_in_every_minute_of_both_nights(minute: str) -> None:
    for zone, changes in CHANGES.items():
        for change in map(utc, changes):
            cron = fire_times(f"{minute} 0-23 * * *", zone, change - timedelta(hours=1))
            assert {b - a for a, b in pairwise(islice(cron, 180))} == {timedelta(minutes=1)}


def test_a_gap_of_half_an_hour_and_one_at_midnight_fire_once() -> None:
    assert times("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00", 2) == [
        "10-04 02:30 +11",
        "10-05 02:15 +11",
    ]
    assert times("0 0 * * *", "Africa/Cairo", "2026-04-23T12:00", 2) == [
        "04-24 01:00 EEST",
        "04-25 00:00 EEST",
    ]


def test_names_and_lists_of_days_and_months_are_understood() -> None:
    assert times("0 6 * jan,JUL MON-wed", "UTC", "2026-06-29T00:00", 4) == [
        "07-01 06:00 UTC",
        "07-06 06:00 UTC",
        "07-07 06:00 UTC",
        "07-08 06:00 UTC",
    ]


def test_a_leap_day_is_waited_for() -> None:
    assert next_fire("0 0 29 2 *", "UTC", utc("2026-01-01T00:00")) == utc("2028-02-29T00:00")


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "* * * *",
        "0 0 2 * * *",
        "@daily",
        "60 * * * *",
        "0 24 * * *",
        "0 0 0 * *",
        "x * * * *",
        "*/0 * * * *",
    ],
)
def test_what_is_no_cron_of_five_fields_is_refused_with_the_field_and_a_remedy(cron: str) -> None:
    with pytest.raises(UsageError) as caught:
        next_fire(cron, "UTC", utcnow())
    assert caught.value.field == "cron"
    assert caught.value.remedy is not None


@pytest.mark.parametrize("cron", ["0 0 30 2 *", "0 0 31 4,6 *", "0 0 31 2 */7"])
def test_a_cron_that_never_fires_is_refused(cron: str) -> None:
    with pytest.raises(UsageError) as caught:
        next_fire(cron, "UTC", utcnow())
    assert caught.value.field == "cron"


@pytest.mark.parametrize("zone", ["", "Europe", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "a\0b"])
def test_what_is_no_time_zone_is_refused_with_the_field(zone: str) -> None:
    with pytest.raises(UsageError) as caught:
        next_fire("0 2 * * *", zone, utcnow())
    assert caught.value.field == "timezone"


_field = st.text("0123456789*/,-#LW", min_size=1, max_size=6)


@settings(max_examples=200)
@given(cron=st.lists(_field, min_size=5, max_size=5).map(" ".join) | st.text(max_size=30))
def test_any_text_gives_rising_fire_times_or_a_usage_error(cron: str) -> None:
    after = utc("2026-10-24T20:00")
    try:
        found = list(islice(fire_times(cron, "Europe/Berlin", after), 5))
    except UsageError:
        return
    assert [after, *found] == sorted({after, *found})
