"""The lease queue: jobs are claimed for a while, kept by heartbeats, retaken when their worker falls silent.

    queued ──claim──> running ──finish──> succeeded
      ^                 │ ├──fail──────> failed      (for good: not to be retried, or tried often enough)
      │                 │ └──cancelled─> cancelled
      └── release, fail, a lease that ran out ┘

Notable choices:
- `attempt` is the fencing token: it rises with every claim, and whatever a worker does to its job names the
  attempt it was given. A worker that lost its lease can change nothing any more; `guard` gives what it
  publishes the same protection. A lease that has run out but that nobody has retaken can still be kept;
- claims on PostgreSQL take turns (one advisory lock until the end of their transaction), for two at once
  could both see the last place under a quota. SQLite has one writer at a time anyway;
- a job's end and the job that tells its schedule's webhook of it are one transaction, so no end goes untold;
- a lease that runs out counts as a failure, so that a job that kills its workers is not tried for ever;
- times come from the database server's clock (`catalog.clock`). Clocks that disagree all the same cost time,
  never correctness: that rests on the attempt alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased
from sqlalchemy.sql.dml import ReturningUpdate

from datapruner.catalog import migrations
from datapruner.catalog.changes import wake
from datapruner.catalog.database import Database
from datapruner.catalog.models import Job, Project, Schedule, Token, new_id, utcnow
from datapruner.errors import WorkerError
from datapruner.service.problems import problem

BACKOFF_SECONDS = 2.0
SPACE_SECONDS = 120.0
"""The pause after a failure for want of space: somebody has to make room first."""
MAX_BACKOFF_SECONDS = 300.0
_WEBHOOK = "webhook"
"""The kind of job that delivers a webhook, see `service.webhooks`."""
_WEBHOOK_ATTEMPTS = 6
_WEBHOOK_PRIORITY = 1  # short, and about what is over
_CLAIM_LOCK = 0x64617461  # any number that nothing else locks

# The claim's statements, built once: building them takes longer than running them.
_NOW = bindparam("now", type_=DateTime())


def _takeable(job: type[Job]) -> ColumnElement[bool]:
    return or_(
        and_(job.state == "queued", job.run_after <= _NOW),
        and_(job.state == "running", job.lease_until < _NOW),
    )


def _full(
    owner: InstrumentedAttribute[str],
    most: InstrumentedAttribute[int | None],
    owned_by: InstrumentedAttribute[Any],
) -> Select[str]:
    """Ids of the projects or tokens that have as many running jobs as they may."""
    running = (
        select(func.count())
        .where(owned_by == owner, Job.state == "running", Job.lease_until >= _NOW)
        .scalar_subquery()
    )
    return select(owner).where(most <= running)


def _take() -> ReturningUpdate[Job]:
    waiting, before = aliased(Job), aliased(Job)
    best = (
        select(waiting.id)
        .where(
            _takeable(waiting),
            waiting.project_id.not_in(_full(Project.id, Project.quota_jobs, Job.project_id)),
            or_(
                waiting.token_id.is_(None),
                waiting.token_id.not_in(_full(Token.id, Token.max_jobs, Job.token_id)),
            ),
            # The jobs of a schedule take turns: the later one is there for what the earlier one leaves.
            or_(
                waiting.schedule_id.is_(None),
                waiting.kind == _WEBHOOK,
                ~exists().where(
                    before.schedule_id == waiting.schedule_id,
                    before.kind == waiting.kind,
                    before.id != waiting.id,
                    before.state == "running",
                    before.lease_until >= _NOW,
                ),
            ),
        )
        .order_by(waiting.priority.desc(), waiting.id)
        .limit(1)
        .with_for_update(skip_locked=True)  # which SQLite neither has nor needs
    )
    return (
        update(Job)
        .where(Job.id == best.scalar_subquery())
        .values(
            state="running",
            attempt=Job.attempt + 1,
            failures=Job.failures + case((Job.state == "running", 1), else_=0),
            worker=bindparam("taken_by"),
            lease_until=bindparam("taken_until"),
            started_at=func.coalesce(Job.started_at, _NOW),
            sequence=Job.sequence + 1,
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )


_ANY = select(Job.id).where(_takeable(Job)).limit(1)
_TAKE = _take()
_VANISHED = (
    select(Job)
    .where(
        Job.state == "running",
        Job.lease_until < _NOW,
        or_(Job.failures + 1 >= Job.max_attempts, Job.cancel_requested),
    )
    .with_for_update(skip_locked=True)
)


class LeaseLostError(Exception):
    """The job is no longer this attempt's: retaken, ended or deleted. Its worker is to drop it."""


class Cancelled(Exception):  # noqa: N818  # no error: somebody wants the job to end
    """Raised inside a job when its cancellation was asked for."""


class Released(Exception):  # noqa: N818  # no error: the worker is to stop
    """Raised inside a job when its worker is to give it back."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on a job until it is lost. `job` is the row as it was when claimed, detached."""

    job_id: str
    attempt: int
    job: Job


def submit(
    session: Session,
    *,
    project_id: str,
    kind: str,
    payload: dict[str, Any],
    token_id: str | None = None,
    schedule_id: str | None = None,
    priority: int = 0,
    request_id: str | None = None,
    max_attempts: int = 3,
) -> Job:
    """Queue a job in the caller's write transaction."""
    job = Job(
        id=new_id("job"),
        project_id=project_id,
        token_id=token_id,
        schedule_id=schedule_id,
        kind=kind,
        payload=payload,
        priority=priority,
        request_id=request_id,
        max_attempts=max_attempts,
    )
    session.add(job)
    session.flush()
    wake(session)
    return job


def claim(db: Database, worker: str, lease_seconds: float, revision: str | None = None) -> Lease | None:
    """Take the best job that may run now: the highest priority, then the oldest. None when there is none.

    Jobs of a project with `quota_jobs` running ones wait, and so do those of a token with `max_jobs`. A
    running job whose lease has run out is taken with a new attempt, or ends when it was tried often enough.
    Raises UsageError when the tables are no longer at `revision`, if one is given: a worker goes on while
    another host upgrades them.
    """
    with db.read() as session:  # so that idle workers do not take turns at SQLite's write lock
        if session.scalar(_ANY, {"now": utcnow()}) is None:
            return None
    with db.write() as session:
        if db.is_sqlite:
            session.connection()  # which waits for the write lock
        else:
            session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CLAIM_LOCK})
        now = utcnow()  # after the wait, else the lease would be shorter by it
        if revision is not None:
            migrations.check(session, revision)
        lease = {"now": now, "taken_until": now + timedelta(seconds=lease_seconds), "taken_by": worker}
        _end_vanished(session, now)
        job = session.scalars(_TAKE, lease).one_or_none()
    return None if job is None else Lease(job.id, job.attempt, job)


def heartbeat(db: Database, lease: Lease, progress: dict[str, Any] | None, lease_seconds: float) -> bool:
    """Keep the lease for `lease_seconds` from now, and tell how far the job is unless `progress` is None.

    True when its cancellation was asked for. Raises LeaseLostError.
    """
    with db.write() as session:
        session.connection()  # which waits for SQLite's write lock
        changes: dict[str, Any] = {"lease_until": utcnow() + timedelta(seconds=lease_seconds)}
        if progress is not None:
            changes |= {"progress": progress, "sequence": Job.sequence + 1}
        keep = update(Job).where(_held_by(lease)).values(**changes).returning(Job.cancel_requested)
        cancel = session.execute(keep.execution_options(synchronize_session=False)).scalar_one_or_none()
    if cancel is None:
        raise _lost(lease)
    return cancel


def guard(session: Session, lease: Lease) -> Job:
    """The job's row, locked until the transaction ends. Raises LeaseLostError unless the lease still holds.

    What a job publishes belongs in a transaction that begins with this.
    """
    held = select(Job).where(_held_by(lease)).with_for_update()
    job = session.scalars(held.execution_options(populate_existing=True)).one_or_none()
    if job is None:
        raise _lost(lease)
    return job


def finish(
    db: Database, lease: Lease, result: dict[str, Any], progress: dict[str, Any] | None = None
) -> None:
    """The job succeeded. `progress` is where it stood at the end. Raises LeaseLostError."""
    with db.write() as session:
        job = guard(session, lease)
        job.result, job.error = result, None
        job.progress = progress or job.progress
        _end(session, job, "succeeded")


def fail(
    db: Database, lease: Lease, error: dict[str, Any], retry: bool, pause: float = BACKOFF_SECONDS
) -> None:
    """The attempt failed; `error` is a problem document. With `retry` it waits and is tried again, unless it
    was tried often enough or is to be cancelled. `pause` is as for `backoff`. Raises LeaseLostError."""
    with db.write() as session:
        job = guard(session, lease)
        job.error = error
        job.failures += 1
        if not retry or job.failures >= job.max_attempts:
            _end(session, job, "failed")
        elif job.cancel_requested:
            _end(session, job, "cancelled")
        else:
            _requeue(session, job, after=backoff(job.failures, pause))


def cancelled(db: Database, lease: Lease) -> None:
    """The job stopped because its cancellation was asked for. Raises LeaseLostError."""
    with db.write() as session:
        _end(session, guard(session, lease), "cancelled")


def release(db: Database, lease: Lease) -> None:
    """Give the job back for others to take at once; not a failure. Raises LeaseLostError."""
    with db.write() as session:
        job = guard(session, lease)
        if job.cancel_requested:
            _end(session, job, "cancelled")
        else:
            _requeue(session, job, after=0.0)


def request_cancel(session: Session, job: Job) -> Job:
    """Cancel a job that waits, or whose worker is gone, at once; ask the worker of a running one to stop.

    A job that has ended stays as it is. Returns the row as it is now, locked.
    """
    session.refresh(job, with_for_update=True)
    if job.state == "queued" or (job.state == "running" and _run_out(job)):
        _end(session, job, "cancelled")
    elif job.state == "running" and not job.cancel_requested:
        job.cancel_requested = True
        job.sequence += 1
    return job


def backoff(failures: int, pause: float = BACKOFF_SECONDS) -> float:
    """Seconds to wait after so many failures: `pause`, twice as long each time, less a random part of up to
    half."""
    longest = min(pause * 2.0 ** (failures - 1), MAX_BACKOFF_SECONDS)
    return random.uniform(longest / 2, longest)  # noqa: S311  # spreads retries, guards nothing


def _end_vanished(session: Session, now: datetime) -> None:
    """End jobs whose lease has run out and that are not to be tried again."""
    for job in session.scalars(_VANISHED, {"now": now}).all():
        job.failures += 1
        if job.cancel_requested:
            _end(session, job, "cancelled")
        else:
            job.error = _vanished(job)
            _end(session, job, "failed")


def _vanished(job: Job) -> dict[str, Any]:
    error = WorkerError(
        f"the worker {job.worker} vanished while it did this job, attempt {job.attempt}",
        remedy="see its log: out of memory, or killed? Then submit the job again",
    )
    return problem(error)


def _end(session: Session, job: Job, state: str) -> None:
    job.state = state
    job.lease_until = None
    job.finished_at = utcnow()
    job.sequence += 1
    wake(session)  # another may have waited for its place
    _announce(session, job)


def _announce(session: Session, job: Job) -> None:
    """Queue the delivery of a job's end to the webhook of its schedule, in the transaction that ends it."""
    if job.schedule_id is None or job.kind == _WEBHOOK:
        return
    schedule = session.get(Schedule, job.schedule_id)
    if schedule is None or schedule.webhook_url is None:
        return
    submit(
        session,
        project_id=job.project_id,
        kind=_WEBHOOK,
        payload={"webhook": {"schedule_id": schedule.id, "job_id": job.id}},
        schedule_id=schedule.id,
        request_id=job.request_id,
        max_attempts=_WEBHOOK_ATTEMPTS,
        priority=_WEBHOOK_PRIORITY,
    )


def _requeue(session: Session, job: Job, *, after: float) -> None:
    job.state = "queued"
    job.lease_until = None
    job.worker = None
    job.run_after = utcnow() + timedelta(seconds=after)
    job.sequence += 1
    if not after:
        wake(session)


def _run_out(job: Job) -> bool:
    return job.lease_until is not None and job.lease_until < utcnow()


def _held_by(lease: Lease) -> ColumnElement[bool]:
    return and_(Job.id == lease.job_id, Job.state == "running", Job.attempt == lease.attempt)


def _lost(lease: Lease) -> LeaseLostError:
    return LeaseLostError(f"{lease.job_id}: attempt {lease.attempt} no longer holds the lease")
