"""Datasets: rows that were uploaded, sent inline or read from a source, in immutable versions."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, status
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from api.dependencies import IdPage, Paging, Reader, RowPage, ServiceDep, Writer, page
from api.forms import DatasetForm, VersionForm
from api.paging import Cursor, row_paging
from api.starting import started
from api.uploads import received, two_bodies
from datapruner.catalog import datasets
from datapruner.catalog.models import Dataset, Job, Upload, Version
from datapruner.errors import ConflictError, StorageError, UsageError
from datapruner.input.shapes import RowParser
from datapruner.schemas.common import Dependent, Page
from datapruner.schemas.datasets import (
    DatasetAnswer,
    Deleted,
    HubSource,
    NewDataset,
    NewVersion,
    PathSource,
    PreviewSample,
    Reject,
    RereadSource,
    Retention,
    UploadSource,
    UrlSource,
    VersionAnswer,
)
from datapruner.schemas.jobs import JobAnswer
from datapruner.service import previews, queue, uploads
from datapruner.service.allowed_sources import check_source
from datapruner.service.instance import Service
from datapruner.service.tokens import Caller
from datapruner.service.uploads import Incoming

router = APIRouter(prefix="/datasets", tags=["datasets"])

_SOURCE: TypeAdapter[HubSource | PathSource | UrlSource] = TypeAdapter(RereadSource)
Number = Annotated[int, InPath(ge=1, le=2**31 - 1, description="of the version")]


def _sample_paging(
    limit: Annotated[int, Query(ge=1, le=100, description="samples on a page")] = 20, cursor: Cursor = None
) -> Paging[int]:
    return row_paging(limit, cursor)


SamplePage = Annotated[Paging[int], Depends(_sample_paging)]


@router.post(
    "",
    operation_id="create_dataset",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobAnswer,
    responses={201: {"model": DatasetAnswer, "description": "The dataset, with `Prefer: wait=N`"}},
    openapi_extra=two_bodies(NewDataset, DatasetForm, file="JSON, JSON lines, CSV, Parquet or Arrow"),
)
async def create_dataset(request: Request, service: ServiceDep, caller: Writer) -> Response:
    """Make a dataset of an uploaded file, of inline rows, or of a source that the service reads.

    The format is told by the content; gzip and zstd are unpacked. With `Prefer: wait=N` the answer is the
    dataset when its rows are read within N seconds.
    """
    async with received(request, NewDataset, DatasetForm) as (body, file):
        dataset, job = await run_in_threadpool(_create, service, caller, body, file)
    return await started(service, request, job, lambda: get_dataset(service, caller, dataset.id))


def _create(
    service: Service, caller: Caller, body: NewDataset | DatasetForm, file: Incoming | None
) -> tuple[Dataset, Job]:
    source: dict[str, Any] | None = None
    if isinstance(body, NewDataset):
        if (body.rows is None) == (body.source is None):
            raise UsageError("give either rows or a source", remedy="or send a file as a form", field="rows")
        file = None if body.rows is None else uploads.inline(body.rows)
        source = None if body.source is None else _readable(service, body.source)
    RowParser(body.mapping)  # raises UsageError for a role that there is not
    with service.db.read() as session:
        datasets.check_free(session, caller.project_id, body.name)
    with uploads.transaction(service.db, service.storage, caller.project_id, file) as (session, upload):
        dataset = datasets.create(
            session,
            caller.project_id,
            body.name,
            source=source,
            mapping=body.mapping,
            keep_versions=body.keep_versions,
            keep_runs=body.keep_runs,
        )
        return dataset, _ingest(session, service, caller, dataset, _brought(upload, source), "create")


def _readable(service: Service, source: HubSource | PathSource | UrlSource) -> dict[str, Any]:
    check_source(service.settings, source)
    return source.model_dump(mode="json")


def _brought(upload: Upload | None, source: dict[str, Any] | None) -> dict[str, Any]:
    """Where the job finds the rows: in the upload or, without one, in the source."""
    if upload is not None:
        return UploadSource(upload_id=upload.id).model_dump()
    assert source is not None
    return source


def _ingest(
    session: Session,
    service: Service,
    caller: Caller,
    dataset: Dataset,
    source: dict[str, Any],
    mode: Literal["create", "append", "append_new"],
) -> Job:
    return queue.submit(
        session,
        project_id=caller.project_id,
        kind="ingest",
        payload={"ingest": {"dataset_id": dataset.id, "source": source, "mode": mode}},
        token_id=caller.token_id,
        request_id=caller.request_id,
        max_attempts=service.settings.max_attempts,
    )


@router.get("", operation_id="list_datasets")
def list_datasets(
    service: ServiceDep,
    caller: Reader,
    paging: IdPage,
    unnamed: Annotated[
        bool, Query(description="those too that nobody named: rows sent to be pruned or compared with")
    ] = False,
) -> Page[DatasetAnswer]:
    """Datasets with their latest versions, the newest first."""
    with service.db.read() as session:
        found = datasets.listing(
            session, caller.project_id, limit=paging.limit + 1, before=paging.after, unnamed=unnamed
        )
        latest = datasets.latest_of(session, [dataset.id for dataset in found])
    answers = [_answer(dataset, latest.get(dataset.id)) for dataset in found]
    return page(answers, paging.limit, lambda dataset: dataset.id)


@router.get("/{dataset}", operation_id="get_dataset")
def get_dataset(service: ServiceDep, caller: Reader, dataset: str) -> DatasetAnswer:
    """A dataset and its latest version: shapes, columns, and how many rows were rejected for what."""
    with service.db.read() as session:
        found = datasets.find(session, caller.project_id, dataset)
        return _answer(found, datasets.latest(session, found.id))


@router.patch("/{dataset}", operation_id="change_dataset")
def change_dataset(service: ServiceDep, caller: Writer, dataset: str, body: Retention) -> DatasetAnswer:
    """Set how many versions and runs are kept. What the body leaves out stays; null keeps all."""
    with service.db.write() as session:
        found = datasets.find(session, caller.project_id, dataset)
        for name in body.model_fields_set:
            setattr(found, name, getattr(body, name))
        return _answer(found, datasets.latest(session, found.id))


@router.delete("/{dataset}", operation_id="delete_dataset")
def delete_dataset(
    service: ServiceDep,
    caller: Writer,
    dataset: str,
    cascade: Annotated[bool, Query(description="delete its runs, exports and schedules too")] = False,
    dry_run: Annotated[bool, Query(description="only say what would be deleted")] = False,
) -> Deleted:
    """Delete a dataset with all its versions. Measurements stay, for other datasets with the same rows."""
    if dry_run:
        with service.db.read() as session:
            found = datasets.find(session, caller.project_id, dataset)
            return _deleted(datasets.dependents(session, found.id), done=False)
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
    for key in keys:
        with contextlib.suppress(StorageError):  # without their rows the files are the sweep's to remove
            service.storage.delete(key)
    return _deleted(counts, done=True)


def _deleted(counts: dict[str, int], *, done: bool) -> Deleted:
    return Deleted(
        deleted=done, dependents=[Dependent(kind=kind, count=count) for kind, count in counts.items()]
    )


@router.post(
    "/{dataset}/versions",
    operation_id="add_version",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobAnswer,
    responses={201: {"model": VersionAnswer, "description": "The version, with `Prefer: wait=N`"}},
    openapi_extra=two_bodies(NewVersion, VersionForm, file="JSON, JSON lines, CSV, Parquet or Arrow"),
)
async def add_version(request: Request, service: ServiceDep, caller: Writer, dataset: str) -> Response:
    """Append rows as a new version: from a file, inline, from a source, or from the dataset's own source.

    With `only_new` rows that the dataset has already are left out; when none is new, there is no new version
    and the latest is the answer.
    """
    async with received(request, NewVersion, VersionForm) as (body, file):
        job = await run_in_threadpool(_append, service, caller, dataset, body, file)
    return await started(service, request, job, lambda: _made_version(service, job.id))


def _append(
    service: Service, caller: Caller, name: str, body: NewVersion | VersionForm, file: Incoming | None
) -> Job:
    with service.db.read() as session:
        own = datasets.find(session, caller.project_id, name).source
    source = None
    if isinstance(body, NewVersion):
        if body.rows is not None and body.source is not None:
            raise UsageError("both rows and a source are given", remedy="give one of them", field="source")
        if body.rows is not None:
            file = uploads.inline(body.rows)
        elif body.source is not None or own is not None:
            source = _readable(service, body.source or _SOURCE.validate_python(own))
        else:
            raise UsageError(
                f"dataset {name} has no source to read again", remedy="give rows, a file or a source"
            )
    with uploads.transaction(service.db, service.storage, caller.project_id, file) as (session, upload):
        dataset = datasets.find(session, caller.project_id, name, lock=True)
        mode: Literal["append", "append_new"] = "append_new" if body.only_new else "append"
        return _ingest(session, service, caller, dataset, _brought(upload, source), mode)


def _made_version(service: Service, job_id: str) -> VersionAnswer:
    with service.db.read() as session:
        result = session.get_one(Job, job_id).result or {}
        return VersionAnswer.model_validate(session.get_one(Version, result["version_id"]))


@router.get("/{dataset}/versions", operation_id="list_versions")
def list_versions(service: ServiceDep, caller: Reader, dataset: str, paging: RowPage) -> Page[VersionAnswer]:
    """The versions of a dataset, the newest first."""
    with service.db.read() as session:
        found = datasets.find(session, caller.project_id, dataset)
        versions = datasets.versions(session, found.id, limit=paging.limit + 1, before=paging.after)
    answers = [VersionAnswer.model_validate(version) for version in versions]
    return page(answers, paging.limit, lambda version: version.number)


@router.get("/{dataset}/versions/{number}", operation_id="get_version")
def get_version(service: ServiceDep, caller: Reader, dataset: str, number: Number) -> VersionAnswer:
    """A version: shapes, columns, and how many rows were rejected for what."""
    return VersionAnswer.model_validate(_version(service, caller, dataset, number))


@router.get("/{dataset}/versions/{number}/rejects", operation_id="list_rejects")
def list_rejects(
    service: ServiceDep, caller: Reader, dataset: str, number: Number, paging: RowPage
) -> Page[Reject]:
    """The rows of a version that are no samples, with reasons and remedies, in row order."""
    corpus = service.storage.local(_version(service, caller, dataset, number).key)
    found = previews.rejects(corpus, limit=paging.limit + 1, after=paging.after)
    return page(found, paging.limit, lambda reject: reject.row)


@router.get("/{dataset}/versions/{number}/samples", operation_id="preview_samples")
def preview_samples(
    service: ServiceDep, caller: Reader, dataset: str, number: Number, paging: SamplePage
) -> Page[PreviewSample]:
    """Samples of a version in row order, their turns as they were understood; long ones are cut."""
    corpus = service.storage.local(_version(service, caller, dataset, number).key)
    found = previews.samples(corpus, limit=paging.limit + 1, after=paging.after)
    return page(found, paging.limit, lambda sample: sample.row)


def _version(service: Service, caller: Caller, dataset: str, number: int) -> Version:
    with service.db.read() as session:
        return datasets.version(session, datasets.find(session, caller.project_id, dataset), number)


def _answer(dataset: Dataset, latest: Version | None) -> DatasetAnswer:
    named = {name: getattr(dataset, name) for name in DatasetAnswer.model_fields if name != "latest"}
    shown = None if latest is None else VersionAnswer.model_validate(latest)
    return DatasetAnswer.model_validate({**named, "latest": shown})
