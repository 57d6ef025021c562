"""Firing schedules: when one is due, or somebody asks, a job comes of it.

Notable choices:
- a fire is a row under UNIQUE(schedule, fire time), inserted in the transaction that submits the job and
  moves the schedule on: any number of tickers on one database fire once;
- after a time without tickers only the latest missed fire happens: it reads all the rows that the others
  would have read;
- with `overlap` queue one fire waits behind the one that works. More would find nothing to do.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from datapruner.catalog import schedules
from datapruner.catalog.database import Database
from datapruner.catalog.models import Dataset, Fire, Job, Schedule, new_id, utcnow
from datapruner.errors import DataprunerError
from datapruner.service import queue
from datapruner.service.fire_times import latest_fire, next_fire
from datapruner.settings import Settings

_PRIORITY = -1  # nobody waits for the answer
_MOST_OPEN = {"skip": 0, "queue": 1}
log = structlog.stdlib.get_logger(__name__)


def tick(db: Database, settings: Settings, now: datetime | None = None) -> list[str]:
    """Fire what is due; the ids of the jobs submitted. `now` in UTC without a zone."""
    now = now or utcnow()
    with db.read() as session:
        due = schedules.due(session, now)
    submitted = []
    for schedule_id in due:
        try:
            with db.write() as session:
                job = _fire_due(session, settings, schedule_id, now)
        except (DataprunerError, IntegrityError) as error:  # the other schedules are still to fire
            log.warning("a schedule did not fire", schedule_id=schedule_id, error=str(error))
        else:
            if job is not None:
                submitted.append(job.id)
    return submitted


def _fire_due(session: Session, settings: Settings, schedule_id: str, now: datetime) -> Job | None:
    schedule = schedules.locked(session, schedule_id)
    if schedule is None or schedule.paused or schedule.next_fire_at is None or schedule.next_fire_at > now:
        return None  # another ticker was first, or it was changed or deleted meanwhile
    fire_at = latest_fire(schedule.cron, schedule.timezone, schedule.next_fire_at, now)
    schedule.next_fire_at = next_fire(schedule.cron, schedule.timezone, now)
    overlaps = schedules.open_jobs(session, schedule.id) > _MOST_OPEN[schedule.overlap]
    try:
        with session.begin_nested():
            fire = Fire(id=new_id("fir"), schedule_id=schedule.id, fire_at=fire_at, outcome="skipped")
            session.add(fire)
    except IntegrityError:  # fired already, by a clock ahead of this one
        return None
    return None if overlaps else _start(session, settings, schedule, fire, schedule.token_id, None)


def fire_now(
    session: Session, settings: Settings, schedule: Schedule, token_id: str | None, request_id: str | None
) -> Job:
    """A job at once, whether or not the schedule is paused or still works, for the token that asks."""
    fire = Fire(id=new_id("fir"), schedule_id=schedule.id, fire_at=utcnow(), outcome="skipped")
    session.add(fire)
    return _start(session, settings, schedule, fire, token_id, request_id)


def _start(
    session: Session,
    settings: Settings,
    schedule: Schedule,
    fire: Fire,
    token_id: str | None,
    request_id: str | None,
) -> Job:
    dataset = session.get_one(Dataset, schedule.dataset_id)
    job = queue.submit(
        session,
        project_id=schedule.project_id,
        kind="schedule",
        payload=_payload(schedule, dataset),
        token_id=token_id,
        schedule_id=schedule.id,
        request_id=request_id,
        max_attempts=settings.max_attempts,
        priority=_PRIORITY,
    )
    fire.job_id, fire.outcome = job.id, "started"
    return job


def _payload(schedule: Schedule, dataset: Dataset) -> dict[str, Any]:
    """Fetch new rows if there is a place to fetch them from, run on the latest version, export, evaluate."""
    payload: dict[str, Any] = {}
    source = schedule.source or dataset.source
    if source is not None and source["kind"] != "upload":
        payload["ingest"] = {"dataset_id": dataset.id, "source": source, "mode": "append_new"}
    payload["run"] = {"dataset_id": dataset.id, "version_id": None, "config": schedule.run}
    if schedule.export_format is not None:
        payload["export"] = {"format": schedule.export_format}
    if schedule.evaluation is not None:
        payload["evaluate"] = schedule.evaluation
    return payload
