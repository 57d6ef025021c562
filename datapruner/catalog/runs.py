"""Runs in the catalog: made with their job, published once their file is there, listed, deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from sqlalchemy import Row, Select, func, select
from sqlalchemy import delete as delete_rows
from sqlalchemy.orm import Session

from datapruner.catalog import evaluations, exports
from datapruner.catalog.models import (
    FINISHED,
    Dataset,
    Evaluation,
    Export,
    Job,
    Run,
    Version,
    new_id,
    utcnow,
)
from datapruner.catalog.pages import newest
from datapruner.errors import ConflictError, NotFoundError
from datapruner.request.config import RunConfig

_LAST_RUNS = 100


@dataclass(frozen=True, slots=True)
class Shown:
    """A run and what a reader wants to know of what it belongs to.

    `state` is its job's, but a published run has succeeded whatever its job does afterwards, such as
    exporting. `version` is the number, null until the version has been ingested.
    """

    run: Run
    dataset: str
    version: int | None
    state: str


def create(
    session: Session,
    *,
    project_id: str,
    dataset_id: str,
    version_id: str | None,
    job_id: str,
    config: RunConfig,
) -> Run:
    """A run that `job_id` is to do; without a version, on the one that the job ingests first."""
    run = Run(
        id=new_id("run"),
        project_id=project_id,
        dataset_id=dataset_id,
        version_id=version_id,
        job_id=job_id,
        config=config.model_dump(mode="json"),
    )
    session.add(run)
    session.flush()
    return run


def of_job(session: Session, job_id: str) -> Run | None:
    """The run that a job does, if it has one."""
    return session.scalars(select(Run).where(Run.job_id == job_id)).one_or_none()


def of_schedule(session: Session, schedule_id: str, version_id: str, config: dict[str, Any]) -> Run | None:
    """The last published run of a schedule on this version with this configuration, whatever measured it."""
    query = select(Run).join(Job, Job.id == Run.job_id).where(Job.schedule_id == schedule_id)
    query = query.where(Run.version_id == version_id, Run.published_at.is_not(None)).order_by(Run.id.desc())
    wanted = _decisive(config)
    return next((run for run in session.scalars(query) if _decisive(run.config) == wanted), None)


def _decisive(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "engine"}


def find(session: Session, project_id: str, run_id: str, *, lock: bool = False) -> Run:
    """A run of the project. Raises NotFoundError.

    `lock` keeps others from locking it until the transaction ends: for adding an export, and for deletion.
    """
    query = select(Run).where(Run.id == run_id, Run.project_id == project_id)
    found = session.scalars(query.with_for_update() if lock else query).one_or_none()
    return found or _no_run(run_id)


def find_published(session: Session, project_id: str, run_id: str, *, lock: bool = False) -> Run:
    """A run of the project whose files are there; `lock` as for `find`.

    Raises NotFoundError, ConflictError.
    """
    run = find(session, project_id, run_id, lock=lock)
    if run.published_at is None:
        state = session.scalars(select(Job.state).where(Job.id == run.job_id)).one()
        raise ConflictError(
            f"run {run_id} has no result: its job is {state}",
            remedy="start it again" if state in FINISHED else f"wait for job {run.job_id}",
            field="run",
        )
    return run


def show(session: Session, project_id: str, run_id: str) -> Shown:
    """A run of the project with its surroundings. Raises NotFoundError."""
    found = session.execute(_shown(project_id).where(Run.id == run_id)).one_or_none()
    return _as_shown(found or _no_run(run_id))


def listing(
    session: Session,
    project_id: str,
    *,
    limit: int,
    before: str | None = None,
    dataset_id: str | None = None,
) -> Sequence[Shown]:
    """Runs of the project, the newest first: at most `limit` of those older than the id `before`."""
    query = _shown(project_id)
    if dataset_id is not None:
        query = query.where(Run.dataset_id == dataset_id)
    return [_as_shown(found) for found in session.execute(newest(query, Run.id, limit, before))]


def published(
    session: Session,
    run: Run,
    *,
    version_id: str,
    key: str,
    content_id: str,
    lineage: dict[str, Any],
    report: dict[str, Any],
    measured: int,
    seconds: float,
    size: int,
) -> Run:
    """Say that the run's files are in storage below `key`, of `size` bytes. The caller holds the lease."""
    run.version_id, run.key, run.content_id = version_id, key, content_id
    run.lineage, run.report = lineage, report
    run.measured, run.seconds, run.bytes = measured, seconds, size
    run.published_at = utcnow()
    session.flush()
    return run


def dtypes_read_in(session: Session, project_id: str, model: str) -> list[str]:
    """The dtypes of a proxy model's signals, as the lineages of the project's last published runs with it
    say, the newest first."""
    query = select(Run.config, Run.lineage).where(Run.project_id == project_id)
    query = query.where(Run.published_at.is_not(None)).order_by(Run.id.desc()).limit(_LAST_RUNS)
    found = session.execute(query).tuples()
    return [
        lineage["proxy"]["dtype"]
        for config, lineage in found
        if lineage is not None and config["measuring"]["model"] == model
    ]


def dependents(session: Session, run: Run) -> dict[str, int]:
    """How many things go with the run when it is deleted, by kind."""
    tables: dict[str, type[Export | Evaluation]] = {"exports": Export, "evaluations": Evaluation}
    return {
        kind: session.scalar(select(func.count()).select_from(table).where(table.run_id == run.id)) or 0
        for kind, table in tables.items()
    }


def delete(session: Session, run: Run, *, cascade: bool) -> list[str]:
    """Delete a run, with `cascade` its exports and evaluations too. Returns the storage prefixes to delete
    after the commit.

    Raises ConflictError while a job works on any of them, or without `cascade` when there are some.
    """
    state = session.scalars(select(Job.state).where(Job.id == run.job_id)).one()
    if state not in FINISHED:
        raise ConflictError(
            f"run {run.id} is in use: its job is {state}", remedy=f"cancel job {run.job_id} or wait for it"
        )
    if busy := evaluations.open_of(session, [run.id]):
        raise ConflictError(
            f"run {run.id} is in use: evaluation {busy[0].id} is at work",
            remedy=f"cancel job {busy[0].job_id} or wait for it",
        )
    with_it = [
        f"{count} {kind.removesuffix('s') if count == 1 else kind}"
        for kind, count in dependents(session, run).items()
        if count
    ]
    if with_it and not cascade:
        raise ConflictError(
            f"run {run.id} has {' and '.join(with_it)}", remedy="delete them first, or with cascade=true"
        )
    prefixes = []
    for export in session.scalars(select(Export).where(Export.run_id == run.id)).all():
        prefixes += exports.delete(session, export)
    session.execute(delete_rows(Evaluation).where(Evaluation.run_id == run.id))
    session.flush()
    session.delete(run)
    session.flush()
    return [*prefixes, f"projects/{run.project_id}/runs/{run.id}"]


def _shown(project_id: str) -> Select[Run, str, int, str]:
    return (
        select(Run, Dataset.name, Version.number, Job.state)
        .join(Dataset, Dataset.id == Run.dataset_id)
        .join(Job, Job.id == Run.job_id)
        .join(Version, Version.id == Run.version_id, isouter=True)
        .where(Run.project_id == project_id)
    )


def _as_shown(found: Row[Run, str, int, str]) -> Shown:
    run, dataset, version, state = found
    return Shown(run, dataset, version, "succeeded" if run.published_at is not None else state)


def _no_run(run_id: str) -> NoReturn:
    raise NotFoundError(f"no run {run_id}", remedy="see GET /v1/runs", field="run")
