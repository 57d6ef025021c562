"""Schedules that fire: one job per time, however many tickers, overlaps and missed nights."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select, update

from datapruner.catalog.database import Database
from datapruner.catalog.models import Dataset, Fire, Job, Schedule, Token, utcnow
from datapruner.service import firing, queue
from datapruner.settings import Settings
from tests.datapruner.service.scheduling import fires, make, next_fire_at, owner, utc
from tests.waiting import PATIENCE

on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def settings_(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def project(database: Database) -> tuple[str, str]:
    return owner(database)


def test_a_due_schedule_fires_for_its_creator_with_all_that_its_job_needs(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    schedule_id = make(database, project, due="2026-05-01T02:00", export="plain-jsonl")
    (job_id,) = firing.tick(database, settings_, utc("2026-05-01T02:00:03"))
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
    assert firing.tick(database, settings_, utc("2026-05-01T02:00:04")) == []


@on_sqlite
def test_without_a_place_for_new_rows_the_job_only_runs(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    with database.write() as session:
        session.execute(update(Dataset).values(source=None))
    make(database, project, due="2026-05-01T02:00", export=None)
    (job_id,) = firing.tick(database, settings_, utc("2026-05-01T02:00"))
    with database.read() as session:
        assert set(session.get_one(Job, job_id).payload) == {"run"}


@on_sqlite
def test_nights_missed_fire_once_for_the_latest_of_them(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    schedule_id = make(database, project, due="2026-05-01T02:00")
    assert len(firing.tick(database, settings_, utc("2026-05-09T12:00"))) == 1
    assert fires(database) == [(utc("2026-05-09T02:00"), "started")]
    assert next_fire_at(database, schedule_id) == utc("2026-05-10T02:00")


@on_sqlite
def test_years_of_missed_minutes_and_rare_fires_are_found_quickly(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    make(database, project, due="1900-01-01T00:00", cron="* * * * *")
    make(database, project, due="1900-01-01T00:00", cron="0 0 29 2 *")
    started = time.monotonic()
    assert len(firing.tick(database, settings_, utc("2026-05-09T12:00:30"))) == 2
    assert time.monotonic() - started < PATIENCE  # one by one, 66 million minutes would take longer
    assert {at for at, _ in fires(database)} == {utc("2026-05-09T12:00"), utc("2024-02-29T00:00")}


def test_a_fire_while_the_one_before_works_is_skipped(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    make(database, project, due="2026-05-01T02:00")
    (first,) = firing.tick(database, settings_, utc("2026-05-01T02:00"))
    assert firing.tick(database, settings_, utc("2026-05-02T02:00")) == []
    assert [outcome for _, outcome in fires(database)] == ["started", "skipped"]
    with database.write() as session:
        queue.request_cancel(session, session.get_one(Job, first))
    assert len(firing.tick(database, settings_, utc("2026-05-03T02:00"))) == 1


@on_sqlite
def test_with_overlap_queue_one_fire_waits_and_further_ones_are_skipped(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    make(database, project, due="2026-05-01T02:00", overlap="queue")
    submitted = [len(firing.tick(database, settings_, utc(f"2026-05-0{day}T02:00"))) for day in (1, 2, 3)]
    assert submitted == [1, 1, 0]
    assert [outcome for _, outcome in fires(database)] == ["started", "started", "skipped"]


@on_sqlite
def test_a_revoked_token_stops_no_schedule(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    make(database, project, due="2026-05-01T02:00")
    with database.write() as session:
        session.execute(update(Token).values(revoked_at=utcnow(), expires_at=utcnow()))
    assert len(firing.tick(database, settings_, utc("2026-05-01T02:00"))) == 1


@on_sqlite
def test_a_schedule_that_cannot_fire_does_not_keep_others_from_it(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    broken = make(database, project, due="2026-05-01T01:00")
    make(database, project, due="2026-05-01T02:00")
    with database.write() as session:
        session.get_one(Schedule, broken).timezone = "Atlantis/Capital"
    assert len(firing.tick(database, settings_, utc("2026-05-01T02:00"))) == 1


def test_a_time_that_has_fired_does_not_fire_again_when_clocks_go_back(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    schedule_id = make(database, project, due="2026-05-01T02:00", overlap="queue")
    firing.tick(database, settings_, utc("2026-05-01T02:00"))
    with database.write() as session:
        session.get_one(Schedule, schedule_id).next_fire_at = utc("2026-05-01T02:00")
    assert firing.tick(database, settings_, utc("2026-05-01T02:00:01")) == []
    assert next_fire_at(database, schedule_id) == utc("2026-05-02T02:00")
    assert len(fires(database)) == 1


_TICKER = """
import sys, time
from datetime import datetime, timedelta
from datapruner.catalog.database import Database
from datapruner.catalog.models import Job
from datapruner.service import firing, queue
from datapruner.settings import Settings
from tests.waiting import PATIENCE

url, home = sys.argv[1:]
db, settings, now = Database(url), Settings(home=home), datetime.fromisoformat("2026-05-01T00:00")
print("ready", flush=True)
begin = float(input())
for minute in range(20):
    time.sleep(max(0, begin + minute / 10 - time.time()))  # so that both ask at the same moment
    for job in firing.tick(db, settings, now + timedelta(minutes=minute)):
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


@on_sqlite
def test_fire_now_gives_a_job_even_when_one_works_and_leaves_the_times_alone(
    database: Database, project: tuple[str, str], settings_: Settings
) -> None:
    schedule_id = make(database, project, due="2026-05-01T02:00")
    firing.tick(database, settings_, utc("2026-05-01T02:00"))
    for _ in range(2):
        with database.write() as session:
            schedule = session.get_one(Schedule, schedule_id)
            job = firing.fire_now(session, settings_, schedule, project[1], "req")
            assert (job.kind, job.request_id) == ("schedule", "req")
    assert [outcome for _, outcome in fires(database)] == ["started"] * 3
    assert next_fire_at(database, schedule_id) == utc("2026-05-02T02:00")
