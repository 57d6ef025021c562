"""Datasets and their versions: what there is, how much of it is kept, and its end.

How they come about is in `service.submission`.
"""

from __future__ import annotations

from pathlib import Path

from datapruner.catalog import datasets
from datapruner.catalog.models import Dataset, Job, Version
from datapruner.errors import ConflictError
from datapruner.schemas.datasets import (
    DatasetAnswer,
    Deleted,
    PreviewSample,
    Reject,
    Retention,
    VersionAnswer,
)
from datapruner.service import previews, retention
from datapruner.service.instance import Service
from datapruner.service.tokens import Caller


def listing(
    service: Service, caller: Caller, *, limit: int, before: str | None = None, unnamed: bool = False
) -> list[DatasetAnswer]:
    """The newest `limit` datasets with their latest versions, as `catalog.datasets.listing`."""
    with service.db.read() as session:
        found = datasets.listing(session, caller.project_id, limit=limit, before=before, unnamed=unnamed)
        latest = datasets.latest_of(session, [dataset.id for dataset in found])
    return [_answer(dataset, latest.get(dataset.id)) for dataset in found]


def show(service: Service, caller: Caller, dataset: str) -> DatasetAnswer:
    """A dataset, by name or id, and its latest version. Raises NotFoundError."""
    with service.db.read() as session:
        found = datasets.find(session, caller.project_id, dataset)
        return _answer(found, datasets.latest(session, found.id))


def change(service: Service, caller: Caller, dataset: str, wanted: Retention) -> DatasetAnswer:
    """Set how much is kept; what is not given stays. Raises NotFoundError."""
    with service.db.write() as session:
        found = datasets.find(session, caller.project_id, dataset)
        for name in wanted.model_fields_set:
            setattr(found, name, getattr(wanted, name))
        return _answer(found, datasets.latest(session, found.id))


def delete(service: Service, caller: Caller, dataset: str, *, cascade: bool, dry_run: bool) -> Deleted:
    """Delete a dataset with its versions, with `cascade` what depends on it too; or only say what would go.

    Raises NotFoundError, and ConflictError while jobs work with it or, without `cascade`, when something
    depends on it.
    """
    if dry_run:
        with service.db.read() as session:
            found = datasets.find(session, caller.project_id, dataset)
            return Deleted.of(datasets.dependents(session, found.id), done=False)
    with service.db.write() as session:
        found = datasets.find(session, caller.project_id, dataset, lock=True)
        counts = datasets.dependents(session, found.id)
        others = {kind: count for kind, count in counts.items() if count and kind != "versions"}
        if others and not cascade:
            named = ", ".join(f"{count} {kind}" for kind, count in others.items())
            raise ConflictError(
                f"dataset {found.name} has {named}", remedy="delete them too with ?cascade=true"
            )
        keys = datasets.delete(session, found)
    retention.delete_files(service.storage, keys)
    return Deleted.of(counts, done=True)


def versions(
    service: Service, caller: Caller, dataset: str, *, limit: int, before: int | None = None
) -> list[VersionAnswer]:
    """The newest `limit` versions, those numbered below `before` if it is given. Raises NotFoundError."""
    with service.db.read() as session:
        found = datasets.find(session, caller.project_id, dataset)
        rows = datasets.versions(session, found.id, limit=limit, before=before)
    return [VersionAnswer.model_validate(row) for row in rows]


def version(service: Service, caller: Caller, dataset: str, number: int) -> VersionAnswer:
    """Raises NotFoundError."""
    return VersionAnswer.model_validate(_version(service, caller, dataset, number))


def version_of_job(service: Service, job_id: str) -> VersionAnswer:
    """The version that a job which has succeeded made or found unchanged."""
    with service.db.read() as session:
        result = session.get_one(Job, job_id).result or {}
        return VersionAnswer.model_validate(session.get_one(Version, result["version_id"]))


def rejects(
    service: Service, caller: Caller, dataset: str, number: int, *, limit: int, after: int | None = None
) -> list[Reject]:
    """Rejected rows of a version, as `previews.rejects`. Raises NotFoundError, StorageError."""
    return previews.rejects(_corpus(service, caller, dataset, number), limit=limit, after=after)


def samples(
    service: Service, caller: Caller, dataset: str, number: int, *, limit: int, after: int | None = None
) -> list[PreviewSample]:
    """Samples of a version, as `previews.samples`. Raises NotFoundError, StorageError."""
    return previews.samples(_corpus(service, caller, dataset, number), limit=limit, after=after)


def _corpus(service: Service, caller: Caller, dataset: str, number: int) -> Path:
    return service.storage.local(_version(service, caller, dataset, number).key)


def _version(service: Service, caller: Caller, dataset: str, number: int) -> Version:
    with service.db.read() as session:
        return datasets.version(session, datasets.find(session, caller.project_id, dataset), number)


def _answer(dataset: Dataset, latest: Version | None) -> DatasetAnswer:
    named = {name: getattr(dataset, name) for name in DatasetAnswer.model_fields if name != "latest"}
    shown = None if latest is None else VersionAnswer.model_validate(latest)
    return DatasetAnswer.model_validate({**named, "latest": shown})
