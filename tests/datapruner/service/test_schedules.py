"""Schedules made, changed and paused."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from datapruner.catalog.database import Database
from datapruner.catalog.models import Schedule, utcnow
from datapruner.errors import ConflictError, UsageError
from datapruner.schemas.schedules import ChangedSchedule
from datapruner.service import firing, schedules
from datapruner.settings import Settings
from tests.datapruner.service.scheduling import make, next_fire_at, owner, utc

on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def settings_(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def project(database: Database) -> tuple[str, str]:
    return owner(database)


def test_a_schedule_that_only_scores_exports_nothing(database: Database, project: tuple[str, str]) -> None:
    made = make(database, project, run={"methods": ["random", "length"]})
    with database.read() as session:
        assert session.get_one(Schedule, made).export_format is None
    with pytest.raises(UsageError, match="no subset to export") as refused:
        make(database, project, run={"method": "random"}, name="other", export="parquet")
    assert refused.value.field == "export"


@on_sqlite
@pytest.mark.parametrize(
    ("export", "run", "message"),
    [
        ("megatron", {"method": "random", "keep": 0.5}, "packed to a length, which a schedule has not"),
        ("trl", {"recipe": {"rewrite": {"method": "asap"}}}, "rewrites reasoning"),
    ],
)
def test_an_export_that_no_run_of_the_schedule_has_is_refused(
    export: str, run: dict[str, object], message: str, database: Database, project: tuple[str, str]
) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        make(database, project, run=run, export=export)
    assert refused.value.field == "export"


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
        schedules.apply_change(session.get_one(Schedule, schedule_id), ChangedSchedule(timezone=zone))


@on_sqlite
@pytest.mark.parametrize("zone", ["UTC", "GMT", "Etc/GMT+5", "EST5EDT", "US/Eastern", "Asia/Kolkata", "Zulu"])
def test_every_other_name_of_the_database_is_taken(
    zone: str, database: Database, project: tuple[str, str]
) -> None:
    assert next_fire_at(database, make(database, project, timezone=zone)) is not None


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
        schedules.apply_change(session.get_one(Schedule, schedule_id), ChangedSchedule(paused=True))
    assert next_fire_at(database, schedule_id) is None
    assert firing.tick(database, settings_, utc("2026-05-03T12:00")) == []
    with database.write() as session:
        schedules.apply_change(session.get_one(Schedule, schedule_id), ChangedSchedule(paused=False))
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
        schedules.apply_change(schedule, ChangedSchedule(cron="30 4 * * *", timezone="Asia/Tokyo"))
        assert schedule.next_fire_at is not None
        assert schedule.next_fire_at.strftime("%H:%M") == "19:30"
        schedules.apply_change(schedule, ChangedSchedule(paused=True))
        assert schedules.next_fires(schedule) == []
    with pytest.raises(UsageError), database.write() as session:
        schedules.apply_change(session.get_one(Schedule, schedule_id), ChangedSchedule(cron="nonsense"))
