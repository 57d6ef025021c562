"""Datasets: rows that were uploaded, sent inline or read from a source, in immutable versions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, status
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from api.dependencies import Reader, ServiceDep, Writer
from api.job_answers import started
from api.paging import Cursor, IdPage, Paging, RowPage, page, row_paging
from api.uploads import received, two_bodies
from datapruner.schemas.common import Page
from datapruner.schemas.datasets import (
    DatasetAnswer,
    Deleted,
    NewDataset,
    NewVersion,
    PreviewSample,
    Reject,
    Retention,
    VersionAnswer,
)
from datapruner.schemas.forms import DatasetForm, VersionForm
from datapruner.schemas.jobs import JobAnswer
from datapruner.service import datasets, submission

router = APIRouter(prefix="/datasets", tags=["datasets"])

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
        wanted = body if isinstance(body, NewDataset) else body.document()
        submitted = await run_in_threadpool(submission.dataset, service, caller, wanted, file)
    return await started(
        service, request, submitted.job, lambda: get_dataset(service, caller, submitted.made)
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
    found = datasets.listing(service, caller, limit=paging.limit + 1, before=paging.after, unnamed=unnamed)
    return page(found, paging.limit, lambda dataset: dataset.id)


@router.get("/{dataset}", operation_id="get_dataset")
def get_dataset(service: ServiceDep, caller: Reader, dataset: str) -> DatasetAnswer:
    """A dataset and its latest version: shapes, columns, and how many rows were rejected for what."""
    return datasets.show(service, caller, dataset)


@router.patch("/{dataset}", operation_id="change_dataset")
def change_dataset(service: ServiceDep, caller: Writer, dataset: str, body: Retention) -> DatasetAnswer:
    """Set how many versions and runs are kept. What the body leaves out stays; null keeps all."""
    return datasets.change(service, caller, dataset, body)


@router.delete("/{dataset}", operation_id="delete_dataset")
def delete_dataset(
    service: ServiceDep,
    caller: Writer,
    dataset: str,
    cascade: Annotated[bool, Query(description="delete its runs, exports and schedules too")] = False,
    dry_run: Annotated[bool, Query(description="only say what would be deleted")] = False,
) -> Deleted:
    """Delete a dataset with all its versions. Measurements stay, for other datasets with the same rows."""
    return datasets.delete(service, caller, dataset, cascade=cascade, dry_run=dry_run)


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
        wanted = body if isinstance(body, NewVersion) else NewVersion(only_new=body.only_new)
        job = await run_in_threadpool(submission.version, service, caller, dataset, wanted, file)
    return await started(service, request, job, lambda: datasets.version_of_job(service, job.id))


@router.get("/{dataset}/versions", operation_id="list_versions")
def list_versions(service: ServiceDep, caller: Reader, dataset: str, paging: RowPage) -> Page[VersionAnswer]:
    """The versions of a dataset, the newest first."""
    found = datasets.versions(service, caller, dataset, limit=paging.limit + 1, before=paging.after)
    return page(found, paging.limit, lambda version: version.number)


@router.get("/{dataset}/versions/{number}", operation_id="get_version")
def get_version(service: ServiceDep, caller: Reader, dataset: str, number: Number) -> VersionAnswer:
    """A version: shapes, columns, and how many rows were rejected for what."""
    return datasets.version(service, caller, dataset, number)


@router.get("/{dataset}/versions/{number}/rejects", operation_id="list_rejects")
def list_rejects(
    service: ServiceDep, caller: Reader, dataset: str, number: Number, paging: RowPage
) -> Page[Reject]:
    """The rows of a version that are no samples, with reasons and remedies, in row order."""
    found = datasets.rejects(service, caller, dataset, number, limit=paging.limit + 1, after=paging.after)
    return page(found, paging.limit, lambda reject: reject.row)


@router.get("/{dataset}/versions/{number}/samples", operation_id="preview_samples")
def preview_samples(
    service: ServiceDep, caller: Reader, dataset: str, number: Number, paging: SamplePage
) -> Page[PreviewSample]:
    """Samples of a version in row order, their turns as they were understood; long ones are cut."""
    found = datasets.samples(service, caller, dataset, number, limit=paging.limit + 1, after=paging.after)
    return page(found, paging.limit, lambda sample: sample.row)
