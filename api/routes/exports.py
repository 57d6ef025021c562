"""Exports: subsets as files, written by a job, downloaded whole or in ranges."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from api.dependencies import IdPage, Reader, ServiceDep, Writer, page
from api.downloads import download
from api.starting import started
from datapruner.catalog import exports, runs
from datapruner.catalog.models import Dataset, Export, Job
from datapruner.errors import ConflictError, StorageError
from datapruner.schemas.common import Page
from datapruner.schemas.datasets import Deleted
from datapruner.schemas.exports import MEDIA_TYPES, SUFFIXES, ExportAnswer, NewExport
from datapruner.schemas.jobs import JobAnswer
from datapruner.service import queue
from datapruner.service.instance import Service
from datapruner.service.tokens import Caller

router = APIRouter(prefix="/exports", tags=["exports"])

_BYTES = {"schema": {"type": "string", "format": "binary"}}
_FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file; ETag and Repr-Digest are of its SHA-256",
        "content": dict.fromkeys(sorted(set(MEDIA_TYPES.values())), _BYTES),
    },
    206: {"description": "The ranges asked for", "content": {"multipart/byteranges": _BYTES}},
    304: {"description": "It is the one that If-None-Match names"},
    416: {"description": "The file has no such range"},
}


@router.post(
    "",
    operation_id="create_export",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobAnswer,
    responses={201: {"model": ExportAnswer, "description": "The export, with `Prefer: wait=N`"}},
)
async def create_export(request: Request, service: ServiceDep, caller: Writer, body: NewExport) -> Response:
    """Write the subset of a run to a file.

    With `Prefer: wait=N` the answer is the finished export when it takes at most N seconds.
    """
    export, job = await run_in_threadpool(_start, service, caller, body)
    return await started(service, request, job, lambda: get_export(service, caller, export.id))


def _start(service: Service, caller: Caller, body: NewExport) -> tuple[Export, Job]:
    with service.db.write() as session:
        run = runs.find_published(session, caller.project_id, body.run, lock=True)
        if run.config["keep"] is None:
            raise ConflictError(
                f"run {run.id} scored and did not prune, so it has no subset",
                remedy="export a run that prunes",
                field="run",
            )
        job = queue.submit(
            session,
            project_id=caller.project_id,
            kind="export",
            payload={"export": {"format": body.format}},
            token_id=caller.token_id,
            request_id=caller.request_id,
            max_attempts=service.settings.max_attempts,
        )
        export = exports.create(
            session, project_id=caller.project_id, run_id=run.id, job_id=job.id, format=body.format
        )
        return export, job


@router.get("", operation_id="list_exports")
def list_exports(
    service: ServiceDep,
    caller: Reader,
    paging: IdPage,
    run: Annotated[str | None, Query(description="only exports of this run")] = None,
) -> Page[ExportAnswer]:
    """Exports, the newest first."""
    with service.db.read() as session:
        only = None if run is None else runs.find(session, caller.project_id, run).id
        found = exports.listing(
            session, caller.project_id, limit=paging.limit + 1, before=paging.after, run_id=only
        )
    return page([_answer(shown) for shown in found], paging.limit, lambda export: export.id)


@router.get("/{export}", operation_id="get_export")
def get_export(service: ServiceDep, caller: Reader, export: str) -> ExportAnswer:
    """An export: how it stands, its size and checksum, and where its file is."""
    with service.db.read() as session:
        return _answer(exports.show(session, caller.project_id, export))


@router.delete("/{export}", operation_id="delete_export")
def delete_export(service: ServiceDep, caller: Writer, export: str) -> Deleted:
    """Delete an export and its file. Its run stays."""
    with service.db.write() as session:
        prefixes = exports.delete(session, exports.find(session, caller.project_id, export))
    for prefix in prefixes:
        with contextlib.suppress(StorageError):  # without their rows the files are the sweep's to remove
            service.storage.delete(prefix)
    return Deleted(deleted=True, dependents=[])


@router.head("/{export}/file", operation_id="check_export", include_in_schema=False)
@router.get(
    "/{export}/file", operation_id="download_export", response_class=Response, responses=_FILE_RESPONSES
)
def download_export(request: Request, service: ServiceDep, caller: Reader, export: str) -> Response:
    """The file itself, or ranges of it."""
    with service.db.read() as session:
        row = exports.find_published(session, caller.project_id, export)
        run = runs.find(session, caller.project_id, row.run_id)
        name = session.get_one(Dataset, run.dataset_id).name
    return file_of(service, request, row, name)


def file_of(service: Service, request: Request, export: Export, name: str) -> Response:
    """The file of a published export as an answer; `name` is of the dataset."""
    assert export.key is not None, export.id
    assert export.sha256 is not None, export.id
    assert export.published_at is not None, export.id
    return download(
        request,
        service.storage.local(export.key),
        sha256=export.sha256,
        modified=export.published_at,
        filename=f"{name}-{export.id}{SUFFIXES[export.format]}",
        media_type=MEDIA_TYPES[export.format],
    )


def _answer(shown: exports.Shown) -> ExportAnswer:
    export = shown.export
    published = export.published_at is not None
    return ExportAnswer.model_validate(
        {name: getattr(export, name) for name in ExportAnswer.model_fields if hasattr(export, name)}
        | {"state": shown.state, "download": f"/v1/exports/{export.id}/file" if published else None}
    )
