"""Hosts with clocks of their own, and the time of the database server that they share."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import text

from datapruner.catalog import clock
from datapruner.catalog.database import Database
from datapruner.catalog.models import new_id, utcnow


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_host_whose_clock_is_wrong_goes_by_the_database_servers(
    hours: int, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = time.time_ns
    monkeypatch.setattr(clock, "_asked", None)
    monkeypatch.setattr(clock, "_ahead", 0)
    monkeypatch.setattr(time, "time_ns", lambda: right() + hours * 3600 * 10**9)
    monkeypatch.setattr("datapruner.catalog.models._drawn", 0)  # ids of a process rise, whatever its clock
    wrong = new_id("job")
    with closing(Database(postgres_url)) as db:
        with db.write() as session:
            session.execute(text("CREATE TABLE asked (number int)"))  # which the question leaves alone
        with db.read() as session:
            assert session.scalar(text("SELECT count(*) FROM asked")) == 0
    assert abs(utcnow() - datetime.now(UTC).replace(tzinfo=None)) < timedelta(minutes=10)
    milliseconds = right() // 10**6 << 40
    assert abs(int(wrong.removeprefix("job_"), 16) - milliseconds) > 3000 * 1000 << 40
    monkeypatch.setattr("datapruner.catalog.models._drawn", 0)
    assert abs(int(new_id("job").removeprefix("job_"), 16) - milliseconds) < 600 * 1000 << 40


def test_a_connection_that_breaks_is_left_to_whoever_asked_for_it(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for a database that is away knows the errors of statements."""
    monkeypatch.setattr(clock, "_asked", None)
    monkeypatch.setattr(clock, "_ahead", 7)
    with psycopg.connect(postgres_url) as broken:
        broken.close()
        clock.follow(broken)
    assert (clock._ahead, clock._asked) == (7, None)
