"""Datasets and their versions: what there is, what depends on it, and its end."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from sqlalchemy import delete as delete_rows
from sqlalchemy import func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from datapruner.catalog.models import (
    OPEN,
    Dataset,
    Delivery,
    Evaluation,
    Export,
    Fire,
    Job,
    Run,
    Schedule,
    Version,
    new_id,
)
from datapruner.catalog.pages import newest
from datapruner.errors import ConflictError, NotFoundError

_PLAIN = re.compile(r"[a-z0-9_]{1,63}")


def find(session: Session, project_id: str, dataset: str, *, lock: bool = False) -> Dataset:
    """The dataset with this name or id. Raises NotFoundError when the project has none.

    `lock` keeps others from locking it until the transaction ends: for what adds a job, and for deletion.
    """
    query = select(Dataset).where(
        Dataset.project_id == project_id, or_(Dataset.name == dataset, Dataset.id == dataset)
    )
    plain = _PLAIN.fullmatch(dataset)  # anything else is no name, and may hold what a database refuses
    found = session.scalars(query.with_for_update() if lock else query).all() if plain else []
    if not found:
        raise NotFoundError(f"no dataset {dataset!r}", remedy="GET /v1/datasets lists them")
    return min(found, key=lambda one: one.id != dataset)  # one may be called by another's id


def create(
    session: Session,
    project_id: str,
    name: str,
    *,
    source: dict[str, Any] | None = None,
    mapping: dict[str, str] | None = None,
    keep_versions: int | None = None,
    keep_runs: int | None = None,
) -> Dataset:
    """A dataset without versions. Raises ConflictError when the name is taken."""
    dataset = Dataset(
        id=new_id("ds"),
        project_id=project_id,
        name=name,
        source=source,
        mapping=mapping or None,
        keep_versions=keep_versions,
        keep_runs=keep_runs,
    )
    try:
        with session.begin_nested():
            session.add(dataset)
    except IntegrityError as error:
        raise taken(name) from error
    return dataset


def check_free(session: Session, project_id: str, name: str) -> None:
    """Raise ConflictError when the name is taken now: before an upload is stored in vain."""
    if session.scalar(select(Dataset.id).where(Dataset.project_id == project_id, Dataset.name == name)):
        raise taken(name)


def taken(name: str) -> ConflictError:
    return ConflictError(
        f"there is a dataset called {name!r}",
        remedy="choose another name, or add a version to it",
        field="name",
    )


def listing(
    session: Session, project_id: str, *, limit: int, before: str | None = None, unnamed: bool = False
) -> list[Dataset]:
    """The newest `limit` datasets, those older than the id `before` if it is given, and those with names that
    were made up only if they are wanted too."""
    query = select(Dataset).where(Dataset.project_id == project_id)
    if not unnamed:
        query = query.where(Dataset.named)
    return list(session.scalars(newest(query, Dataset.id, limit, before)))


def latest(session: Session, dataset_id: str) -> Version | None:
    """The newest version; None before the first is published."""
    return latest_of(session, [dataset_id]).get(dataset_id)


def latest_of(session: Session, dataset_ids: Collection[str]) -> dict[str, Version]:
    """The newest version of each of these datasets that has one."""
    newest = (
        select(Version.dataset_id, func.max(Version.number).label("number"))
        .where(Version.dataset_id.in_(dataset_ids))
        .group_by(Version.dataset_id)
        .subquery()
    )
    query = select(Version).join(
        newest, (Version.dataset_id == newest.c.dataset_id) & (Version.number == newest.c.number)
    )
    return {version.dataset_id: version for version in session.scalars(query)}


def of_job(session: Session, job_id: str) -> Version | None:
    """The version that a job has published, if it has."""
    return session.scalars(select(Version).where(Version.job_id == job_id)).one_or_none()


def versions(session: Session, dataset_id: str, *, limit: int, before: int | None = None) -> list[Version]:
    """The newest `limit` versions, those with a number below `before` if it is given."""
    query = select(Version).where(Version.dataset_id == dataset_id)
    return list(session.scalars(newest(query, Version.number, limit, before)))


def version(session: Session, dataset: Dataset, number: int) -> Version:
    """Raises NotFoundError when the dataset has no such version, or no longer."""
    wanted = select(Version).where(Version.dataset_id == dataset.id, Version.number == number)
    found = session.scalar(wanted)
    if found is None:
        raise NotFoundError(
            f"dataset {dataset.name} has no version {number}",
            remedy=f"GET /v1/datasets/{dataset.name}/versions lists them",
        )
    return found


def dependents(session: Session, dataset_id: str) -> dict[str, int]:
    """How many of each kind depend on a dataset, those there are none of too."""
    runs = select(Run.id).where(Run.dataset_id == dataset_id)
    queries = {
        "versions": select(func.count()).select_from(Version).where(Version.dataset_id == dataset_id),
        "runs": select(func.count()).select_from(Run).where(Run.dataset_id == dataset_id),
        "exports": select(func.count()).select_from(Export).where(Export.run_id.in_(runs)),
        "evaluations": select(func.count()).select_from(Evaluation).where(Evaluation.run_id.in_(runs)),
        "schedules": select(func.count()).select_from(Schedule).where(Schedule.dataset_id == dataset_id),
    }
    return {kind: session.scalar(query) or 0 for kind, query in queries.items()}


def open_jobs(session: Session, dataset: Dataset) -> list[Job]:
    """Jobs that wait or run and that write to the dataset or read it."""
    runs = select(Run.id).where(Run.dataset_id == dataset.id)
    schedules = select(Schedule.id).where(Schedule.dataset_id == dataset.id)
    concerned = or_(
        Job.payload["ingest"]["dataset_id"].as_string() == dataset.id,
        Job.payload["run"]["dataset_id"].as_string() == dataset.id,
        Job.id.in_(select(Run.job_id).where(Run.dataset_id == dataset.id)),
        Job.id.in_(select(Export.job_id).where(Export.run_id.in_(runs))),
        Job.id.in_(select(Evaluation.job_id).where(Evaluation.run_id.in_(runs))),
        Job.schedule_id.in_(schedules) & (Job.kind != "webhook"),
    )
    query = select(Job).where(Job.project_id == dataset.project_id, Job.state.in_(OPEN), concerned)
    return list(session.scalars(query.order_by(Job.id)))


def delete(session: Session, dataset: Dataset) -> list[str]:
    """Delete the dataset with everything that depends on it; the keys in storage that go after the commit.

    Signals stay: other datasets with the same rows share them. Raises ConflictError while jobs are open.
    """
    if busy := open_jobs(session, dataset):
        raise ConflictError(
            f"{busy[0].kind} job {busy[0].id} works with dataset {dataset.name}",
            remedy="cancel it, or wait for its end",
        )
    project = f"projects/{dataset.project_id}"
    runs = list(session.scalars(select(Run.id).where(Run.dataset_id == dataset.id)))
    of_runs = select(Run.id).where(Run.dataset_id == dataset.id)
    exports = list(session.scalars(select(Export.id).where(Export.run_id.in_(of_runs))))
    schedules = select(Schedule.id).where(Schedule.dataset_id == dataset.id)
    for statement in (
        delete_rows(Delivery).where(Delivery.schedule_id.in_(schedules)),
        delete_rows(Fire).where(Fire.schedule_id.in_(schedules)),
        update(Job).where(Job.schedule_id.in_(schedules)).values(schedule_id=None),
        delete_rows(Schedule).where(Schedule.dataset_id == dataset.id),
        delete_rows(Export).where(Export.run_id.in_(of_runs)),
        delete_rows(Evaluation).where(Evaluation.run_id.in_(of_runs)),
        delete_rows(Run).where(Run.dataset_id == dataset.id),
        delete_rows(Version).where(Version.dataset_id == dataset.id),
        delete_rows(Dataset).where(Dataset.id == dataset.id),
    ):
        session.execute(statement.execution_options(synchronize_session=False))
    return [
        *(f"{project}/exports/{export}" for export in exports),
        *(f"{project}/runs/{run}" for run in runs),
        f"{project}/corpora/{dataset.id}",
    ]
