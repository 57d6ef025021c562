"""Schedules of the tests, on a dataset that can be read again."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select

from datapruner.catalog.database import Database
from datapruner.catalog.models import Dataset, Fire, Project, Schedule, Token, new_id
from datapruner.runs import recipes
from datapruner.schemas.schedules import NewSchedule
from datapruner.service import schedules

NIGHTLY = {"dataset": "alpaca", "cron": "0 2 * * *", "run": {"method": "random", "keep": 0.5}}


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text)


def owner(database: Database) -> tuple[str, str]:
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
        schedule = schedules.add(session, dataset, body, recipes.of_request(body.run, {}), project[1])
        if due is not None:
            schedule.next_fire_at = utc(due)
        return schedule.id


def fires(database: Database) -> list[tuple[datetime, str]]:
    with database.read() as session:
        return [(fire.fire_at, fire.outcome) for fire in session.scalars(select(Fire).order_by(Fire.id))]


def next_fire_at(database: Database, schedule_id: str) -> datetime | None:
    with database.read() as session:
        return session.get_one(Schedule, schedule_id).next_fire_at
