"""Kept answers, on both kinds of database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from datapruner.catalog import idempotency, projects
from datapruner.catalog.database import Database
from datapruner.catalog.models import Reply, utcnow


@pytest.fixture
def token(database: Database) -> str:
    with database.write() as session:
        project = projects.create_project(session, "some").id
        return projects.create_token(session, project, "t", "digest", ["read"]).id


def test_of_many_claims_at_once_one_is_the_first(database: Database, token: str) -> None:
    def claim(_: int) -> bool:
        try:
            with database.write() as session:
                return idempotency.claim(session, token, "key")[1]
        except IntegrityError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(8))) == 1


def test_an_answer_stays_for_a_day_and_is_swept_afterwards(database: Database, token: str) -> None:
    with database.write() as session:
        for key, age in (("young", 23), ("old", 25)):
            reply, first = idempotency.claim(session, token, key)
            assert first
            idempotency.settle(session, reply.id, "print", 200, {"location": "/"}, "body")
            session.refresh(reply)
            assert (reply.status, reply.headers) == (200, {"location": "/"})
            reply.created_at = utcnow() - timedelta(hours=age)
    with database.write() as session:
        idempotency.sweep(session)
        assert [reply.key for reply in session.query(Reply)] == ["young"]
        assert idempotency.claim(session, token, "young")[1] is False
        assert idempotency.claim(session, token, "old")[1] is True


def test_a_request_that_is_renewed_keeps_its_key(database: Database, token: str) -> None:
    with database.write() as session:
        reply, _ = idempotency.claim(session, token, "slow")
        reply.created_at = utcnow() - timedelta(minutes=5)
        session.flush()
        idempotency.renew(session, reply.id)
        session.refresh(reply)
        assert idempotency.claim(session, token, "slow") == (reply, False)
        reply.created_at = utcnow() - timedelta(minutes=5)
        session.flush()
        assert idempotency.claim(session, token, "slow")[1] is True


def test_a_released_key_is_free(database: Database, token: str) -> None:
    with database.write() as session:
        reply, _ = idempotency.claim(session, token, "again")
        idempotency.release(session, reply.id)
    with database.write() as session:
        assert idempotency.claim(session, token, "again")[1] is True
