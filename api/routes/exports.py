"""Exports: subsets as files, written by a job, downloaded whole or in ranges."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from api.dependencies import Reader, ServiceDep, Writer
from api.downloads import download
from api.job_answers import started
from api.paging import IdPage, page
from datapruner.schemas.common import Page
from datapruner.schemas.datasets import Deleted
from datapruner.schemas.exports import FILE_NAME, LICENSE, MEDIA_TYPES, TAR, ExportAnswer, NewExport
from datapruner.schemas.jobs import JobAnswer
from datapruner.service import exports, submission

router = APIRouter(prefix="/exports", tags=["exports"])

_BYTES = {"schema": {"type": "string", "format": "binary"}}
_FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file; ETag and Repr-Digest are of its SHA-256",
        "content": dict.fromkeys(sorted({*MEDIA_TYPES.values(), TAR}), _BYTES),
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
    submitted = await run_in_threadpool(submission.export, service, caller, body)
    return await started(
        service, request, submitted.job, lambda: exports.show(service, caller, submitted.made)
    )


@router.get("", operation_id="list_exports")
def list_exports(
    service: ServiceDep,
    caller: Reader,
    paging: IdPage,
    run: Annotated[str | None, Query(description="only exports of this run")] = None,
) -> Page[ExportAnswer]:
    """Exports, the newest first."""
    found = exports.listing(service, caller, limit=paging.limit + 1, before=paging.after, run=run)
    return page(found, paging.limit, lambda export: export.id)


@router.get("/{export}", operation_id="get_export")
def get_export(service: ServiceDep, caller: Reader, export: str) -> ExportAnswer:
    """An export: how it stands, its size and checksum, and where its file is."""
    return exports.show(service, caller, export)


@router.delete("/{export}", operation_id="delete_export")
def delete_export(service: ServiceDep, caller: Writer, export: str) -> Deleted:
    """Delete an export and its file. Its run stays."""
    return exports.delete(service, caller, export)


@router.head("/{export}/file", operation_id="check_export", include_in_schema=False)
@router.get(
    "/{export}/file", operation_id="download_export", response_class=Response, responses=_FILE_RESPONSES
)
def download_export(request: Request, service: ServiceDep, caller: Reader, export: str) -> Response:
    """The file itself, or ranges of it."""
    file = exports.file(service, caller, export)
    return download(request, file, f"{file.dataset}-{export}{file.suffix}")


@router.get(
    "/{export}/card",
    operation_id="get_card",
    response_class=Response,
    responses={200: {"description": "A tar archive of its folder", "content": {TAR: _BYTES}}},
)
def get_card(
    service: ServiceDep,
    caller: Reader,
    export: str,
    license: Annotated[  # noqa: A002 (the parameter is called so)
        str | None, Query(pattern=LICENSE, description="what it says; default: that of the source, if known")
    ] = None,
    file: Annotated[
        str | None, Query(pattern=FILE_NAME, description="what the file is called; default: as downloaded")
    ] = None,
) -> Response:
    """Its dataset card with plots and the verdict, and croissant.json, to be unpacked beside the file."""
    name, archive = exports.card(service, caller, export, license, file)
    about = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}.tar"}
    return Response(archive, media_type=TAR, headers=about)
