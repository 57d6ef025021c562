"""Who waits for work learns that something was written."""

from __future__ import annotations

import threading
from contextlib import closing, suppress

import pytest
from sqlalchemy import text

from datapruner.catalog import projects
from datapruner.catalog.changes import Changes, wake
from datapruner.catalog.database import Database
from tests.waiting import PATIENCE


def write(db: Database, name: str) -> None:
    with db.write() as session:
        projects.create_project(session, name)
        wake(session)


def test_what_another_connection_has_written_ends_the_waiting(database: Database) -> None:
    with closing(Changes(database)) as changes:
        writer = threading.Timer(0.05, write, (database, "a"))
        writer.start()
        assert changes.wait(PATIENCE, threading.Event())
        writer.join()


def test_what_was_written_before_the_waiting_is_not_missed(database: Database) -> None:
    with closing(Changes(database)) as changes:
        write(database, "a")
        assert changes.wait(PATIENCE, threading.Event())
        assert not changes.wait(0.0, threading.Event()), "told once"


def test_what_is_not_committed_wakes_nobody(database: Database) -> None:
    with closing(Changes(database)) as changes:
        with suppress(ZeroDivisionError), database.write() as session:
            projects.create_project(session, "a")
            wake(session)
            raise ZeroDivisionError
        assert not changes.wait(0.0, threading.Event())


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_lost_connection_is_made_again_and_waiting_is_only_time_meanwhile(database: Database) -> None:
    with closing(Changes(database)) as changes:
        with database.write() as session:
            session.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ '^LISTEN'")
            )
        assert not changes.wait(0.05, threading.Event())
        assert not changes.wait(0.0, threading.Event())
        write(database, "a")
        assert changes.wait(PATIENCE, threading.Event())


def test_waiting_ends_when_it_is_to_stop(database: Database) -> None:
    stop = threading.Event()
    with closing(Changes(database)) as changes:
        threading.Timer(0.05, stop.set).start()
        assert not changes.wait(PATIENCE, stop)
    assert stop.is_set()


def test_reading_is_no_change(database: Database) -> None:
    with closing(Changes(database)) as changes:
        with database.read() as session:
            projects.list_projects(session, limit=1)
        assert not changes.wait(0.0, threading.Event())
