"""Exports in the catalog: made with their job, published once their file is there, listed, deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Row, Select, select
from sqlalchemy.orm import Session

from datapruner.catalog.models import FINISHED, Export, Job, Run, new_id, utcnow
from datapruner.catalog.pages import newest
from datapruner.errors import ConflictError, NotFoundError


@dataclass(frozen=True, slots=True)
class Shown:
    """An export and the state of its job; a published one has succeeded."""

    export: Export
    state: str


def create(
    session: Session,
    *,
    project_id: str,
    run_id: str,
    job_id: str,
    format: str,  # noqa: A002
    max_length: int | None = None,
    too_long: str | None = None,
) -> Export:
    """An export that `job_id` is to write. `format` is one of `rows.formats.AnyExportFormat`."""
    export = Export(id=new_id("exp"), project_id=project_id, run_id=run_id, job_id=job_id, format=format)
    export.max_length, export.too_long = max_length, too_long
    session.add(export)
    session.flush()
    return export


def of_job(session: Session, job_id: str) -> Export | None:
    """The export that a job writes, if it has one."""
    return session.scalars(select(Export).where(Export.job_id == job_id)).one_or_none()


def of_run(session: Session, run_id: str, format: str) -> Export | None:  # noqa: A002
    """The last published export of a run in this format, with all of its rows."""
    query = select(Export).where(Export.run_id == run_id, Export.format == format)
    query = query.where(Export.max_length.is_(None))
    query = query.where(Export.published_at.is_not(None)).order_by(Export.id.desc()).limit(1)
    return session.scalars(query).one_or_none()


def show(session: Session, project_id: str, export_id: str) -> Shown:
    """An export of the project. Raises NotFoundError."""
    found = session.execute(_shown(project_id).where(Export.id == export_id)).one_or_none()
    if found is None:
        raise NotFoundError(f"no export {export_id}", remedy="see GET /v1/exports", field="export")
    return _as_shown(found)


def find(session: Session, project_id: str, export_id: str) -> Export:
    """An export of the project. Raises NotFoundError."""
    return show(session, project_id, export_id).export


def find_published(session: Session, project_id: str, export_id: str) -> Export:
    """An export of the project whose file is there. Raises NotFoundError, ConflictError."""
    shown = show(session, project_id, export_id)
    if shown.export.published_at is None:
        raise ConflictError(
            f"export {export_id} has no file: its job is {shown.state}",
            remedy="start it again" if shown.state in FINISHED else f"wait for job {shown.export.job_id}",
            field="export",
        )
    return shown.export


def listing(
    session: Session,
    project_id: str,
    *,
    limit: int,
    before: str | None = None,
    run_id: str | None = None,
    dataset_id: str | None = None,
) -> Sequence[Shown]:
    """Exports of the project, the newest first: at most `limit` of those older than the id `before`, of a run
    or of a dataset's runs if these are given."""
    query = _shown(project_id)
    if run_id is not None:
        query = query.where(Export.run_id == run_id)
    if dataset_id is not None:
        query = query.where(Export.run_id.in_(select(Run.id).where(Run.dataset_id == dataset_id)))
    return [_as_shown(found) for found in session.execute(newest(query, Export.id, limit, before))]


def published(
    session: Session,
    export: Export,
    *,
    key: str,
    rows: int,
    size: int,
    sha256: str,
    counts: dict[str, int] | None = None,
) -> Export:
    """Say that the file is in storage at `key`. The caller holds the lease."""
    export.key, export.rows, export.bytes, export.sha256 = key, rows, size, sha256
    export.counts = counts
    export.published_at = utcnow()
    session.flush()
    return export


def delete(session: Session, export: Export) -> list[str]:
    """Delete an export. Returns the storage prefixes to delete after the commit.

    Raises ConflictError while its job is at work.
    """
    state = session.scalars(select(Job.state).where(Job.id == export.job_id)).one()
    if state not in FINISHED:
        raise ConflictError(
            f"export {export.id} is in use: its job is {state}",
            remedy=f"cancel job {export.job_id} or wait for it",
        )
    session.delete(export)
    return [f"projects/{export.project_id}/exports/{export.id}"]


def _shown(project_id: str) -> Select[Export, str]:
    return select(Export, Job.state).join(Job, Job.id == Export.job_id).where(Export.project_id == project_id)


def _as_shown(found: Row[Export, str]) -> Shown:
    export, state = found
    return Shown(export, "succeeded" if export.published_at is not None else state)
