"""Retention: old versions and runs of a dataset go, and files that nothing refers to.

What is referred to stays, whatever the numbers say:
- the latest version, and every version that a run which stays refers to or that an open job may read;
- a run whose job is open, or that is being evaluated, and one with an export that was asked for on its own.
  An export made in the run's own job, as every night's is, belongs to the run and goes with it, as its
  evaluations do.

Notable choices:
- rows go first, in one transaction, then files. When the process dies in between, or the storage refuses, the
  files have no row any more and the sweep finds them;
- the sweep lists files before it reads rows, so a row committed meanwhile protects its file; and it spares
  young files, whose row may be about to be committed, and what a run keeps there while its job is open (its
  plan, which may get old: measuring takes days);
- what trainings of an evaluation read goes when it is old and no job of the project is open: it is there for
  the job that does the rest, and what comes of it is in the catalog. So do models tuned on a target set: one
  that is asked for again is tuned again;
- signals are the cache and stay, unless no run of the project was measured with their key, nothing was added
  to them for a month, and no job of the project is open. A job that begins just then measures them anew;
- runs are locked before they are judged: whoever adds an export to one locks it too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import delete, exists, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from datapruner.catalog import idempotency
from datapruner.catalog.database import Database
from datapruner.catalog.models import (
    FINISHED,
    OPEN,
    Dataset,
    Evaluation,
    Export,
    Job,
    Project,
    Run,
    Upload,
    Version,
    utcnow,
)
from datapruner.errors import StorageError
from datapruner.runs.published import signal_folders
from datapruner.service.storage import Storage, Stored

_READ_UPLOADS = ("ingest", "prune")
_SWEPT = ("uploads", "corpora", "runs", "exports", "evaluations", "tuned")
_SIGNALS, _FOR_JOBS = "signals", ("evaluations", "tuned")
_SIGNALS_FOR = timedelta(days=30)
log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Swept:
    """How much the sweep deleted."""

    files: int
    uploads: int


def apply(db: Database, storage: Storage, dataset_id: str) -> None:
    """Delete the dataset's oldest runs and versions beyond `keep_runs` and `keep_versions`.

    To be called after a job of the dataset has succeeded. Files that the storage does not let go are left to
    the sweep.
    """
    try:
        with db.write() as session:
            dataset = session.scalars(
                select(Dataset).where(Dataset.id == dataset_id).with_for_update()
            ).one_or_none()
            if dataset is None or (dataset.keep_runs is None and dataset.keep_versions is None):
                return
            folders = _remove_runs(session, dataset) + _remove_versions(session, dataset)
    except IntegrityError:  # somebody has just begun to refer to one of them; the next job asks again
        return
    delete_files(storage, folders)


def _remove_runs(session: Session, dataset: Dataset) -> list[str]:
    """Published runs beyond the number, and those that failed before the oldest published one that stays;
    gives the folders of what is removed."""
    if dataset.keep_runs is None:
        return []
    session.execute(select(Run.id).where(Run.dataset_id == dataset.id).with_for_update())
    open_jobs = select(Job.id).where(Job.state.in_(OPEN))
    exported_alone = exists().where(
        Export.run_id == Run.id,
        Export.job_id != Run.job_id,
        Export.published_at.is_not(None) | Export.job_id.in_(open_jobs),
    )
    in_evaluation = exists().where(Evaluation.run_id == Run.id, Evaluation.job_id.in_(open_jobs))
    rows = session.execute(
        select(Run.id, Run.published_at, Job.state, exported_alone | in_evaluation)
        .join(Job, Job.id == Run.job_id)
        .where(Run.dataset_id == dataset.id)
        .order_by(Run.id.desc())
    )
    kept, removed = 0, []
    for run_id, published_at, state, needed in rows:
        if kept >= dataset.keep_runs and state in FINISHED and not needed:
            removed.append(run_id)
        elif published_at is not None:
            kept += 1
    exports = session.scalars(select(Export.id).where(Export.run_id.in_(removed)))
    folders = [f"projects/{dataset.project_id}/exports/{export_id}" for export_id in exports]
    folders += [f"projects/{dataset.project_id}/runs/{run_id}" for run_id in removed]
    session.execute(delete(Export).where(Export.run_id.in_(removed)))
    session.execute(delete(Evaluation).where(Evaluation.run_id.in_(removed)))
    session.execute(delete(Run).where(Run.id.in_(removed)))
    return folders


def _remove_versions(session: Session, dataset: Dataset) -> list[str]:
    """The oldest versions that nothing reads; gives their folders."""
    if dataset.keep_versions is None:
        return []
    versions = session.scalars(
        select(Version).where(Version.dataset_id == dataset.id).order_by(Version.number.desc())
    ).all()
    old = versions[dataset.keep_versions :]
    needed = set(session.scalars(select(Run.version_id).where(Run.version_id.in_([v.id for v in old]))))
    needed |= _read_by_jobs(session, dataset, versions)
    removed = [version.id for version in old if version.id not in needed]
    session.execute(delete(Version).where(Version.id.in_(removed)))
    return [f"projects/{dataset.project_id}/corpora/{dataset.id}/{version_id}" for version_id in removed]


def _read_by_jobs(session: Session, dataset: Dataset, versions: Sequence[Version]) -> set[str]:
    """Ids of the versions that open jobs read: the one they name, or what was the latest since they began."""
    needed = set()
    open_jobs = select(Job).where(Job.project_id == dataset.project_id, Job.state.in_(OPEN))
    for job in session.scalars(open_jobs):
        steps = [job.payload[step] for step in ("ingest", "run") if step in job.payload]
        for step in (step for step in steps if step["dataset_id"] == dataset.id):
            if step.get("version_id") is not None:
                needed.add(step["version_id"])
            elif job.started_at is not None:
                for version in versions:  # the newest first
                    needed.add(version.id)
                    if version.created_at <= job.started_at:
                        break
    return needed


def sweep(
    db: Database, storage: Storage, older_than: timedelta, signals_older_than: timedelta = _SIGNALS_FOR
) -> Swept:
    """Delete files without a row that are older than `older_than`, signals that no run was measured with,
    uploads that nothing needs any more, what killed processes left unfinished, and replies of yesterday."""
    with db.read() as session:
        projects = session.scalars(select(Project.id)).all()
    aged = _aged(storage, projects, older_than, signals_older_than)
    for project_id in projects:
        storage.clear(f"projects/{project_id}")
    with db.write() as session:
        uploads = _remove_uploads(session, older_than)
        idempotency.sweep(session)
    with db.read() as session:
        orphans = _without_row(session, aged)
    delete_files(storage, [*uploads, *(each.key for each in orphans)])
    return Swept(len(orphans), len(uploads))


def orphans(
    db: Database, storage: Storage, older_than: timedelta, signals_older_than: timedelta = _SIGNALS_FOR
) -> list[Stored]:
    """The files that `sweep` would delete, but uploads with a row and what is unfinished."""
    with db.read() as session:
        projects = session.scalars(select(Project.id)).all()
    aged = _aged(storage, projects, older_than, signals_older_than)
    with db.read() as session:
        return _without_row(session, aged)


def _aged(
    storage: Storage, projects: Iterable[str], older_than: timedelta, signals_older_than: timedelta
) -> list[Stored]:
    """Files that are old enough to go, those of signals with all that have their key."""
    now = utcnow()
    found: list[Stored] = []
    for project_id in projects:
        for kind in _SWEPT:
            listed = storage.listing(f"projects/{project_id}/{kind}")
            found += (each for each in listed if each.modified < now - older_than)
        by_key: dict[str, list[Stored]] = {}
        for each in storage.listing(f"projects/{project_id}/{_SIGNALS}"):
            by_key.setdefault(each.key.split("/")[3], []).append(each)
        for files in by_key.values():
            if max(each.modified for each in files) < now - signals_older_than:
                found += files
    return found


def _without_row(session: Session, aged: Sequence[Stored]) -> list[Stored]:
    """Those of the files that no row refers to."""
    keys, folders = _referred(session)
    measured: dict[str, set[str] | None] = {}
    busy: dict[str, bool] = {}
    found = []
    for each in aged:
        _, project_id, kind, name, *_ = each.key.split("/")
        if kind == _SIGNALS:
            if project_id not in measured:
                measured[project_id] = _measured_with(session, project_id)
            needed = measured[project_id]
            if needed is not None and name not in needed:
                found.append(each)
        elif kind in _FOR_JOBS:
            if project_id not in busy:
                busy[project_id] = _is_busy(session, project_id)
            if not busy[project_id]:
                found.append(each)
        elif each.key not in keys and not any(parent in folders for parent in _parents(each.key)):
            found.append(each)
    return found


def _measured_with(session: Session, project_id: str) -> set[str] | None:
    """Names of the keys that runs of the project were measured with; None while a job of it is open, which
    may be measuring with any."""
    if _is_busy(session, project_id):
        return None
    names = ("proxy", "views", "embedder", "reward_model")
    parts = [Run.lineage[name].as_string() for name in names]
    made = select(*parts).where(Run.project_id == project_id, Run.lineage.is_not(None)).distinct()
    found: set[str] = set()
    for texts in session.execute(made):
        lineage = {name: json.loads(text) for name, text in zip(names, texts, strict=True) if text}
        found |= signal_folders(lineage)
    return found


def _is_busy(session: Session, project_id: str) -> bool:
    """Whether a job of the project is open."""
    open_job = select(Job.id).where(Job.project_id == project_id, Job.state.in_(OPEN)).limit(1)
    return session.scalar(open_job) is not None


def _remove_uploads(session: Session, older_than: timedelta) -> list[str]:
    """Uploads whose jobs have all ended, and old ones that never got a job; the keys of their files."""
    now = utcnow()
    found = session.scalars(select(Upload)).all()
    waiting: set[str | None] = set()
    ended: set[str | None] = set()
    since = min((upload.created_at for upload in found), default=now) - timedelta(hours=1)
    jobs = select(Job.payload, Job.state).where(Job.kind.in_(_READ_UPLOADS), Job.created_at >= since)
    for payload, state in session.execute(jobs):
        upload_id = payload.get("ingest", {}).get("source", {}).get("upload_id")
        (ended if state in FINISHED else waiting).add(upload_id)
    unneeded = [
        upload
        for upload in found
        if upload.id not in waiting and (upload.id in ended or upload.created_at < now - older_than)
    ]
    session.execute(delete(Upload).where(Upload.id.in_([upload.id for upload in unneeded])))
    return [upload.key for upload in unneeded]


def _referred(session: Session) -> tuple[set[str], set[str]]:
    """Keys of files, and of folders, that rows refer to."""
    keys = {
        key
        for column in (Upload.key, Version.key, Export.key)
        for key in session.scalars(select(column))
        if key is not None
    }
    folders = {key for key in session.scalars(select(Run.key)) if key is not None}
    of_runs = select(Run.project_id, Run.id).join(Job, Job.id == Run.job_id)
    unfinished = session.execute(of_runs.where(Job.state.in_(OPEN)))
    folders |= {f"projects/{project_id}/runs/{run_id}" for project_id, run_id in unfinished}
    return keys, folders


def _parents(key: str) -> Iterable[str]:
    parts = key.split("/")
    return ("/".join(parts[:length]) for length in range(1, len(parts)))


def delete_files(storage: Storage, keys: Iterable[str]) -> None:
    """Delete files and folders that no row refers to; those that storage does not let go are the sweep's."""
    for key in keys:
        try:
            storage.delete(key)
        except StorageError as error:
            log.warning("a file stays until the next sweep", key=key, error=str(error))
