"""Runs of a service told to the trackers that its workers' setting names; never to one that a user names, who
could make a worker call any address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from datapruner.catalog.models import Dataset, Project, Run, Version
from datapruner.errors import StorageError
from datapruner.progress import Progress
from datapruner.request.config import RunConfig
from datapruner.runs import folders
from datapruner.service import results
from datapruner.service.context import Context
from datapruner.service.queue import Cancelled, LeaseLostError, Released
from datapruner.tracking.following import Following, following
from datapruner.tracking.lineage import Places

_log = structlog.get_logger(__name__)


@contextmanager
def tracked(context: Context, run: Run, key: str, progress: Progress) -> Iterator[Following]:
    """Trackers follow the run that is done in the block, whose files go to the folder `key` of the storage.

    A tracker that fails is logged.
    """
    with context.db.read() as session:
        project = session.get_one(Project, run.project_id)
        dataset, version = session.get_one(Dataset, run.dataset_id), session.get_one(Version, run.version_id)
    places = Places(
        source=_source(dataset.source) or _place(context, version.key),
        scores=_place(context, f"{key}/run.duckdb"),
        rows=f"{project.name}.{dataset.name}",
    )
    about = {
        "service.job": run.job_id,
        "project": project.name,
        "dataset": dataset.name,
        "version": str(version.number),
    }
    with following(
        context.settings.log_to,
        RunConfig(**run.config),
        progress,
        warn,
        about=about,
        places=places,
        stops=(Cancelled, Released, LeaseLostError),
    ) as found:
        yield found


def done(context: Context, followed: Following, run: Run) -> None:
    """Log a run that is published now."""
    if not context.settings.log_to:
        return
    try:
        with context.db.read() as session:
            corpus = context.storage.local(session.get_one(Version, run.version_id).key)
        made = results.of_files(context.storage, run)
        context.storage.local(f"{run.key}/{folders.DOCUMENT}")
    except StorageError as error:
        warn(str(error))
        return
    followed.done(made, corpus)


def _place(context: Context, key: str) -> str:
    return f"{context.settings.files.rstrip('/')}/{key}"


def _source(source: dict[str, Any] | None) -> str | None:
    """Where a dataset's rows come from, if they can be read again."""
    if source is None:
        return None
    return str(source.get("url") or source.get("path") or f"hf://datasets/{source['name']}")


def warn(text: str) -> None:
    """Say that a tracker failed."""
    _log.warning("a run was not logged to a tracker", why=text)
