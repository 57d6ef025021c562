"""Looking jobs up. What changes them is the queue's: `datapruner.service.queue`."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from datapruner.catalog.models import Job
from datapruner.catalog.pages import newest
from datapruner.errors import NotFoundError


def find(session: Session, project_id: str, job_id: str) -> Job:
    """Raises NotFoundError when there is none, or it is another project's."""
    wanted = select(Job).where(Job.project_id == project_id, Job.id == job_id)
    job = session.scalar(wanted) if job_id.isidentifier() else None  # no id, nor safe to ask for
    if job is None:
        raise NotFoundError(f"no job {job_id!r}", remedy="GET /v1/jobs lists them")
    return job


def listing(
    session: Session,
    project_id: str,
    *,
    limit: int,
    before: str | None = None,
    state: str | None = None,
    kind: str | None = None,
) -> list[Job]:
    """The newest `limit` jobs, those older than the id `before` if it is given."""
    query = select(Job).where(Job.project_id == project_id)
    if state is not None:
        query = query.where(Job.state == state)
    if kind is not None:
        query = query.where(Job.kind == kind)
    return list(session.scalars(newest(query, Job.id, limit, before)))
