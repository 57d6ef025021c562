"""Queries on schedules, their fires and their deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete as delete_rows
from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from datapruner.catalog.models import OPEN, Dataset, Delivery, Fire, Job, Schedule
from datapruner.catalog.pages import newest
from datapruner.errors import NotFoundError


def find(session: Session, project_id: str, name_or_id: str, *, lock: bool = False) -> Schedule:
    """A schedule of the project. Raises NotFoundError.

    One that is called as another's id comes second. `lock` keeps tickers off until the transaction ends.
    """
    wanted = or_(Schedule.id == name_or_id, Schedule.name == name_or_id)
    query = select(Schedule).where(Schedule.project_id == project_id, wanted)
    found = session.scalars(query.with_for_update() if lock else query).all()
    if not found:
        raise NotFoundError(f"no schedule {name_or_id!r}", remedy="GET /v1/schedules lists them")
    return min(found, key=lambda one: one.id != name_or_id)


def listing(
    session: Session, project_id: str, limit: int, before: str | None
) -> list[tuple[Schedule, Dataset]]:
    """Up to `limit` schedules with their datasets, the newest first, older than the id `before`."""
    query = (
        select(Schedule, Dataset)
        .join(Dataset, Dataset.id == Schedule.dataset_id)
        .where(Schedule.project_id == project_id)
    )
    found = session.execute(newest(query, Schedule.id, limit, before))
    return [(schedule, dataset) for schedule, dataset in found]


def fires(
    session: Session, schedule_id: str, limit: int, before: str | None
) -> list[tuple[Fire, Job | None]]:
    """Fires with their jobs, the newest first."""
    query = (
        select(Fire, Job)
        .join(Job, Job.id == Fire.job_id, isouter=True)
        .where(Fire.schedule_id == schedule_id)
    )
    return [(fire, job) for fire, job in session.execute(newest(query, Fire.id, limit, before))]


def deliveries(session: Session, schedule_id: str, limit: int, before: str | None) -> Sequence[Delivery]:
    """Attempts to deliver the schedule's webhooks, the newest first."""
    query = select(Delivery).where(Delivery.schedule_id == schedule_id)
    return session.scalars(newest(query, Delivery.id, limit, before)).all()


def due(session: Session, now: datetime) -> Sequence[str]:
    """Ids of the schedules that are to fire, the longest due first."""
    query = select(Schedule.id).where(Schedule.paused.is_(False), Schedule.next_fire_at <= now)
    return session.scalars(query.order_by(Schedule.next_fire_at)).all()


def locked(session: Session, schedule_id: str) -> Schedule | None:
    """The schedule, locked until the transaction ends."""
    query = select(Schedule).where(Schedule.id == schedule_id).with_for_update()
    return session.scalars(query.execution_options(populate_existing=True)).one_or_none()


def open_jobs(session: Session, schedule_id: str) -> int:
    """How many of the schedule's fires still wait or work."""
    query = select(func.count()).where(
        Job.schedule_id == schedule_id, Job.kind == "schedule", Job.state.in_(OPEN)
    )
    return session.scalar(query) or 0


def names_like(session: Session, project_id: str, prefix: str) -> set[str]:
    """Names of the project's schedules that begin with `prefix`."""
    query = select(Schedule.name).where(
        Schedule.project_id == project_id, Schedule.name.startswith(prefix, autoescape=True)
    )
    return set(session.scalars(query))


def dependents(session: Session, schedule_id: str) -> dict[str, int]:
    """How many things go with a schedule, by kind."""
    fired = select(func.count()).select_from(Fire).where(Fire.schedule_id == schedule_id)
    told = select(func.count()).select_from(Delivery).where(Delivery.schedule_id == schedule_id)
    return {"fire": session.scalar(fired) or 0, "delivery": session.scalar(told) or 0}


def delete(session: Session, schedule_id: str) -> None:
    """Delete a schedule with its history. Its jobs stay, as jobs of their own."""
    for statement in (
        update(Job).where(Job.schedule_id == schedule_id).values(schedule_id=None),
        delete_rows(Fire).where(Fire.schedule_id == schedule_id),
        delete_rows(Delivery).where(Delivery.schedule_id == schedule_id),
        delete_rows(Schedule).where(Schedule.id == schedule_id),
    ):
        session.execute(statement.execution_options(synchronize_session=False))
