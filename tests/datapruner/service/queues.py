"""Projects, jobs and workers of the tests of the queue."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import update

from datapruner.catalog.database import Database
from datapruner.catalog.models import Job, Project, utcnow
from datapruner.schemas.jobs import JobResult
from datapruner.service import queue
from datapruner.service.context import Context
from datapruner.service.job_progress import JobProgress
from datapruner.service.queue import Lease
from datapruner.service.worker import run_worker
from datapruner.settings import load
from tests.forked import Forked

LEASE = 600.0
"""Seconds; none runs out while a test is at work, see `pass_time`."""
ROOT = Path(__file__).parents[3]


def project(db: Database, **quotas: Any) -> str:
    """A new project's id."""
    with db.write() as session:
        made = Project(id=f"prj_{time.time_ns()}", name=f"p{time.time_ns()}", **quotas)
        session.add(made)
    return made.id


def submit(db: Database, project_id: str, **details: Any) -> Job:
    """A job that does nothing in particular, unless the details say otherwise."""
    with db.write() as session:
        given = {"kind": "run", "payload": {"work": "none"}} | details
        return queue.submit(session, project_id=project_id, **given)


def job(db: Database, job_id: str) -> Job:
    """The job as it is now."""
    with db.read() as session:
        return session.get_one(Job, job_id)


def claim(db: Database, worker: str = "worker", seconds: float = LEASE) -> Lease:
    """A lease that there must be."""
    lease = queue.claim(db, worker, seconds)
    assert lease is not None
    return lease


def pass_time(db: Database, job_id: str) -> None:
    """As if nobody had heard of the job's worker for as long as its lease was."""
    with db.write() as session:
        moment = utcnow() - timedelta(seconds=1)
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=moment))


def perform(context: Context, lease: Lease, progress: JobProgress) -> JobResult:
    """Take the steps that the payload asks for, and write down when it began and ended. Where it names a file
    `until`, the work goes on until that is there.

    A deaf job does not report its steps, so that nothing can stop it.
    """
    payload = lease.job.payload
    _write(payload["log"], lease, "begin")
    progress.stage("working", payload.get("steps", 0), "steps")
    for step in itertools.count(1):
        if step > payload.get("steps", 0) and Path(payload.get("until", "/")).exists():
            break
        time.sleep(0.05)
        if not payload.get("deaf"):
            progress.at(step)
    _write(payload["log"], lease, "end")
    return JobResult(measured=os.getpid())


def _write(log: str, lease: Lease, what: str) -> None:
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(f"{what} {time.time()} {lease.job_id} {lease.attempt} {os.getpid()}\n")


@dataclass(frozen=True)
class Entry:
    """A line of the log that `perform` writes."""

    what: str
    at: float
    job_id: str
    attempt: int
    pid: int


def entries(log: Path) -> list[Entry]:
    """What was begun and ended, in this order."""
    if not log.exists():
        return []
    parts = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    return [
        Entry(what, float(at), job_id, int(attempt), int(pid)) for what, at, job_id, attempt, pid in parts
    ]


def started(database_url: str, home: Path) -> Forked:
    """A worker process that does such jobs."""
    environment = {
        **os.environ,
        "DATAPRUNER_DATABASE_URL": database_url,
        "DATAPRUNER_HOME": str(home),
        "DATAPRUNER_DEVICES": "cpu",
        "DATAPRUNER_LEASE_SECONDS": str(LEASE),
    }
    return Forked(_work, environment=environment, said=home / "workers.log")


def _work() -> None:
    run_worker(load(), perform=perform)
