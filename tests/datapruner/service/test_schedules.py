"""Schedules: fire times on the wall clock, one fire per time, overlaps, pauses."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from datapruner.catalog.database import Database
from datapruner.catalog.models import Dataset, Fire, Job, Project, Schedule, Token, new_id, utcnow
from datapruner.errors import ConflictError, UsageError
from datapruner.schemas.schedules import ChangedSchedule, NewSchedule
from datapruner.service import queue, schedules
from datapruner.settings import Settings
from tests.waiting import PATIENCE

NIGHTLY = {"dataset": "alpaca", "cron": "0 2 * * *", "run": {"method": "random", "keep": 0.5}}


on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text)


def times(cron: str, zone: str, after: str, count: int) -> list[str]:
    found = islice(schedules.fire_times(cron, zone, utc(after)), count)
    return [m.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M %Z") for m in found]


def between(cron: str, zone: str, begin: datetime, end: datetime) -> list[datetime]:
    return list(takewhile(lambda moment: moment < end, schedules.fire_times(cron, zone, begin)))


@pytest.fixture
def settings_(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def project(database: Database) -> tuple[str, str]:
    """Ids of a project and of a token of it; the project has a dataset `alpaca` that can be read again."""
    project_id, token_id = new_id("prj"), new_id("tok")
    with database.write() as session:
        session.add(Project(id=project_id, name="ours"))
        session.flush()
        session.add(Token(id=token_id, project_id=project_id, name="t", digest="d", scopes=["write"]))
        source = {"kind": "path", "path": "nightly"}
        session.add(Dataset(id=new_id("ds"), project_id=project_id, name="alpaca", source=source))
    return project_id, token_id


def make(database: Database, project: tuple[str, str], due: str | None = None, **wanted: object) -> str:
    """A schedule, which is to fire next at `due`."""
    with database.write() as session:
        dataset = session.scalars(select(Dataset).where(Dataset.project_id == project[0])).one()
        body = NewSchedule.model_validate(NIGHTLY | wanted)
        schedule = schedules.create(session, dataset, body, body.run.config({}), project[1])
        if due is not None:
            schedule.next_fire_at = utc(due)
        return schedule.id


def fires(database: Database) -> list[tuple[datetime, str]]:
    with database.read() as session:
        return [(fire.fire_at, fire.outcome) for fire in session.scalars(select(Fire).order_by(Fire.id))]


def next_fire_at(database: Database, schedule_id: str) -> datetime | None:
    with database.read() as session:
        return session.get_one(Schedule, schedule_id).next_fire_at


def test_a_schedule_that_only_scores_exports_nothing(database: Database, project: tuple[str, str]) -> None:
    made = make(database, project, run={"methods": ["random", "length"]})
    with database.read() as session:
        assert session.get_one(Schedule, made).export_format is None
    with pytest.raises(UsageError, match="no subset to export") as refused:
        make(database, project, run={"method": "random"}, name="other", export="parquet")
    assert refused.value.field == "export"


# Fire times


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
        found = list(islice(schedules.fire_times(f"5 {hour} * * *", zone, change - timedelta(hours=4)), 9))
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
            cron = schedules.fire_times(f"{minute} 0-23 * * *", zone, change - timedelta(hours=1))
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
    assert schedules.next_fire("0 0 29 2 *", "UTC", utc("2026-01-01T00:00")) == utc("2028-02-29T00:00")


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
        schedules.next_fire(cron, "UTC", utcnow())
    assert caught.value.field == "cron"
    assert caught.value.remedy is not None


@pytest.mark.parametrize("cron", ["0 0 30 2 *", "0 0 31 4,6 *", "0 0 31 2 */7"])
def test_a_cron_that_never_fires_is_refused(cron: str) -> None:
    with pytest.raises(UsageError) as caught:
        schedules.next_fire(cron, "UTC", utcnow())
    assert caught.value.field == "cron"


@pytest.mark.parametrize("zone", ["", "Europe", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "a\0b"])
def test_what_is_no_time_zone_is_refused_with_the_field(zone: str) -> None:
    with pytest.raises(UsageError) as caught:
        schedules.next_fire("0 2 * * *", zone, utcnow())
    assert caught.value.field == "timezone"


@on_sqlite
@pytest.mark.parametrize(
    "zone",
    [
        "right/UTC",
        "posix/Europe/Berlin",
        "Factory",
        "localtime",
        "posixrules",
        "right/Factory",
        "utc ",
        "tzdata.zi",
    ],
)
def test_what_names_no_place_is_refused_as_a_zone(
    zone: str, database: Database, project: tuple[str, str]
) -> None:
    with pytest.raises(UsageError, match="no such time zone") as caught:
        make(database, project, timezone=zone)
    assert caught.value.field == "timezone"
    schedule_id = make(database, project)
    with pytest.raises(UsageError, match="no such time zone"), database.write() as session:
        schedules.change(session.get_one(Schedule, schedule_id), ChangedSchedule(timezone=zone))


@on_sqlite
@pytest.mark.parametrize("zone", ["UTC", "GMT", "Etc/GMT+5", "EST5EDT", "US/Eastern", "Asia/Kolkata", "Zulu"])
def test_every_other_name_of_the_database_is_taken(
    zone: str, database: Database, project: tuple[str, str]
) -> None:
    assert next_fire_at(database, make(database, project, timezone=zone)) is not None


_field = st.text("0123456789*/,-#LW", min_size=1, max_size=6)


@settings(max_examples=200)
@given(cron=st.lists(_field, min_size=5, max_size=5).map(" ".join) | st.text(max_size=30))
def test_any_text_gives_rising_fire_times_or_a_usage_error(cron: str) -> None:
    after = utc("2026-10-24T20:00")
    try:
        found = list(islice(schedules.fire_times(cron, "Europe/Berlin", after), 5))
    except UsageError:
        return
    assert [after, *found] == sorted({after, *found})


# Ticks


def test_a_due_schedule_fires_for_its_creator_with_all_that_its_job_needs(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    schedule_id = make(database, project, due="2026-05-01T02:00", export="plain-jsonl")
    (job_id,) = schedules.tick(database, settings_, utc("2026-05-01T02:00:03"))
    with database.read() as session:
        job = session.get_one(Job, job_id)
        dataset = session.scalars(select(Dataset)).one()
    assert (job.kind, job.schedule_id, job.token_id) == ("schedule", schedule_id, project[1])
    assert job.payload["ingest"] == {
        "dataset_id": dataset.id,
        "source": {"kind": "path", "path": "nightly"},
        "mode": "append_new",
    }
    assert job.payload["run"]["dataset_id"] == dataset.id
    assert job.payload["run"]["version_id"] is None
    assert job.payload["run"]["config"]["methods"][0]["name"] == "random"
    assert job.payload["export"] == {"format": "plain-jsonl"}
    assert fires(database) == [(utc("2026-05-01T02:00"), "started")]
    assert next_fire_at(database, schedule_id) == utc("2026-05-02T02:00")
    assert schedules.tick(database, settings_, utc("2026-05-01T02:00:04")) == []


@on_sqlite
def test_without_a_place_for_new_rows_the_job_only_runs(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    with database.write() as session:
        session.execute(update(Dataset).values(source=None))
    make(database, project, due="2026-05-01T02:00", export=None)
    (job_id,) = schedules.tick(database, settings_, utc("2026-05-01T02:00"))
    with database.read() as session:
        assert set(session.get_one(Job, job_id).payload) == {"run"}


@on_sqlite
def test_nights_missed_fire_once_for_the_latest_of_them(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    schedule_id = make(database, project, due="2026-05-01T02:00")
    assert len(schedules.tick(database, settings_, utc("2026-05-09T12:00"))) == 1
    assert fires(database) == [(utc("2026-05-09T02:00"), "started")]
    assert next_fire_at(database, schedule_id) == utc("2026-05-10T02:00")


@on_sqlite
def test_years_of_missed_minutes_and_rare_fires_are_found_quickly(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    make(database, project, due="1900-01-01T00:00", cron="* * * * *")
    make(database, project, due="1900-01-01T00:00", cron="0 0 29 2 *")
    started = time.monotonic()
    assert len(schedules.tick(database, settings_, utc("2026-05-09T12:00:30"))) == 2
    assert time.monotonic() - started < PATIENCE  # one by one, 66 million minutes would take longer
    assert {at for at, _ in fires(database)} == {utc("2026-05-09T12:00"), utc("2024-02-29T00:00")}


def test_a_fire_while_the_one_before_works_is_skipped(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    make(database, project, due="2026-05-01T02:00")
    (first,) = schedules.tick(database, settings_, utc("2026-05-01T02:00"))
    assert schedules.tick(database, settings_, utc("2026-05-02T02:00")) == []
    assert [outcome for _, outcome in fires(database)] == ["started", "skipped"]
    with database.write() as session:
        queue.request_cancel(session, session.get_one(Job, first))
    assert len(schedules.tick(database, settings_, utc("2026-05-03T02:00"))) == 1


@on_sqlite
def test_with_overlap_queue_one_fire_waits_and_further_ones_are_skipped(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    make(database, project, due="2026-05-01T02:00", overlap="queue")
    submitted = [len(schedules.tick(database, settings_, utc(f"2026-05-0{day}T02:00"))) for day in (1, 2, 3)]
    assert submitted == [1, 1, 0]
    assert [outcome for _, outcome in fires(database)] == ["started", "started", "skipped"]


@on_sqlite
def test_a_revoked_token_stops_no_schedule(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    make(database, project, due="2026-05-01T02:00")
    with database.write() as session:
        session.execute(update(Token).values(revoked_at=utcnow(), expires_at=utcnow()))
    assert len(schedules.tick(database, settings_, utc("2026-05-01T02:00"))) == 1


@on_sqlite
def test_a_schedule_that_cannot_fire_does_not_keep_others_from_it(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    broken = make(database, project, due="2026-05-01T01:00")
    make(database, project, due="2026-05-01T02:00")
    with database.write() as session:
        session.get_one(Schedule, broken).timezone = "Atlantis/Capital"
    assert len(schedules.tick(database, settings_, utc("2026-05-01T02:00"))) == 1


def test_a_time_that_has_fired_does_not_fire_again_when_clocks_go_back(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    schedule_id = make(database, project, due="2026-05-01T02:00", overlap="queue")
    schedules.tick(database, settings_, utc("2026-05-01T02:00"))
    with database.write() as session:
        session.get_one(Schedule, schedule_id).next_fire_at = utc("2026-05-01T02:00")
    assert schedules.tick(database, settings_, utc("2026-05-01T02:00:01")) == []
    assert next_fire_at(database, schedule_id) == utc("2026-05-02T02:00")
    assert len(fires(database)) == 1


_TICKER = """
import sys, time
from datetime import datetime, timedelta
from datapruner.catalog.database import Database
from datapruner.catalog.models import Job
from datapruner.service import queue, schedules
from datapruner.settings import Settings
from tests.waiting import PATIENCE

url, home = sys.argv[1:]
db, settings, now = Database(url), Settings(home=home), datetime.fromisoformat("2026-05-01T00:00")
print("ready", flush=True)
begin = float(input())
for minute in range(20):
    time.sleep(max(0, begin + minute / 10 - time.time()))  # so that both ask at the same moment
    for job in schedules.tick(db, settings, now + timedelta(minutes=minute)):
        print(job)
        with db.write() as session:
            queue.request_cancel(session, session.get_one(Job, job))
"""


@pytest.mark.slow
def test_two_processes_that_tick_on_one_database_fire_each_time_once(
    database: Database, project: tuple[str, str], tmp_path: Path
) -> None:
    for number in range(2):
        make(database, project, due="2026-05-01T00:00", cron="* * * * *", overlap="queue", name=f"s{number}")
    url = database.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", _TICKER, url, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    tickers = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for ticker in tickers:
        assert ticker.stdout.readline() == "ready\n"
    begin = f"{time.time() + 0.2}\n"
    for ticker in tickers:
        ticker.stdin.write(begin)
        ticker.stdin.flush()
    submitted = [ticker.communicate(timeout=PATIENCE)[0].split() for ticker in tickers]
    assert [ticker.returncode for ticker in tickers] == [0, 0]
    with database.read() as session:
        found = session.execute(select(Fire.schedule_id, Fire.fire_at, Fire.outcome)).all()
        all_jobs = session.scalars(select(Job.id)).all()
    assert len(found) == len({(schedule, at) for schedule, at, _ in found}) == 2 * 20
    assert sorted(submitted[0] + submitted[1]) == sorted(all_jobs)
    assert sum(outcome == "started" for *_, outcome in found) == len(all_jobs) > 20


# Creating and changing


def test_a_name_is_made_of_the_datasets_and_a_taken_one_is_refused(
    database: Database, project: tuple[str, str]
) -> None:
    for _ in range(3):
        make(database, project)
    with database.read() as session:
        assert set(session.scalars(select(Schedule.name))) == {"alpaca", "alpaca_2", "alpaca_3"}
    with pytest.raises(ConflictError) as caught:
        make(database, project, name="alpaca_2")
    assert caught.value.field == "name"


@on_sqlite
def test_nights_in_a_pause_do_not_fire_afterwards(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    schedule_id = make(database, project, due="2026-05-01T02:00")
    with database.write() as session:
        schedules.change(session.get_one(Schedule, schedule_id), ChangedSchedule(paused=True))
    assert next_fire_at(database, schedule_id) is None
    assert schedules.tick(database, settings_, utc("2026-05-03T12:00")) == []
    with database.write() as session:
        schedules.change(session.get_one(Schedule, schedule_id), ChangedSchedule(paused=False))
    resumed = next_fire_at(database, schedule_id)
    assert resumed is not None
    assert utcnow() < resumed <= utcnow() + timedelta(days=1)


@on_sqlite
def test_a_change_of_times_takes_effect_at_once_and_a_bad_one_is_refused_even_in_a_pause(
    database: Database, project: tuple[str, str]
) -> None:
    schedule_id = make(database, project)
    with database.write() as session:
        schedule = session.get_one(Schedule, schedule_id)
        schedules.change(schedule, ChangedSchedule(cron="30 4 * * *", timezone="Asia/Tokyo"))
        assert schedule.next_fire_at is not None
        assert schedule.next_fire_at.strftime("%H:%M") == "19:30"
        schedules.change(schedule, ChangedSchedule(paused=True))
        assert schedules.next_fires(schedule) == []
    with pytest.raises(UsageError), database.write() as session:
        schedules.change(session.get_one(Schedule, schedule_id), ChangedSchedule(cron="nonsense"))


@on_sqlite
def test_fire_now_gives_a_job_even_when_one_works_and_leaves_the_times_alone(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    schedule_id = make(database, project, due="2026-05-01T02:00")
    schedules.tick(database, settings_, utc("2026-05-01T02:00"))
    for _ in range(2):
        with database.write() as session:
            schedule = session.get_one(Schedule, schedule_id)
            job = schedules.fire_now(session, settings_, schedule, project[1], "req")
            assert (job.kind, job.request_id) == ("schedule", "req")
    assert [outcome for _, outcome in fires(database)] == ["started"] * 3
    assert next_fire_at(database, schedule_id) == utc("2026-05-02T02:00")
