"""The one-call door: rows in, subset out."""

from __future__ import annotations

from typing import get_args

from fastapi import APIRouter, Request, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from api.dependencies import ServiceDep, Writer
from api.downloads import download
from api.job_answers import preferred_wait, started
from api.negotiation import accepted, negotiated, preferred
from api.uploads import received, two_bodies
from datapruner.schemas.exports import MEDIA_TYPES, SubsetFormat
from datapruner.schemas.forms import PruneForm
from datapruner.schemas.jobs import JobAnswer
from datapruner.schemas.prune import NewPrune
from datapruner.service import exports, submission, uploads
from datapruner.service.instance import Service
from datapruner.service.submission import Submitted
from datapruner.service.tokens import Caller
from datapruner.service.uploads import Incoming

router = APIRouter(tags=["prune"])

_FORMATS: dict[str, SubsetFormat] = {MEDIA_TYPES[name]: name for name in get_args(SubsetFormat)}
_FIRST, *_ = _FORMATS.values()
_BYTES = {"schema": {"type": "string", "format": "binary"}}


@router.post(
    "/prune",
    operation_id="prune",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobAnswer,
    responses={
        200: {
            "description": "The subset, with `Prefer: wait=N`",
            "content": dict.fromkeys(_FORMATS, _BYTES),
        },
        406: {"description": "No such representation"},
    },
    openapi_extra=two_bodies(NewPrune, PruneForm, file="JSON, JSON lines, CSV, Parquet or Arrow"),
)
async def prune(request: Request, service: ServiceDep, caller: Writer) -> Response:
    """Make a dataset of a file or of rows, prune it, and export the subset, all in one job.

    With `Prefer: wait=N` the answer is the subset itself when it is there within N seconds: Parquet with
    scores and masks or, by Accept, JSON lines as they came. Otherwise it is the job, which links to it.
    """
    wanted = _format(request)
    async with received(request, NewPrune, PruneForm) as (body, file):
        submitted = await run_in_threadpool(_submit, service, caller, body, file, wanted)
    return await started(
        service, request, submitted.job, lambda: _subset(service, caller, request, submitted.made)
    )


def _format(request: Request) -> SubsetFormat:
    """What the subset is to be written as. Raises HTTPException 406."""
    only_started = preferred_wait(request) is None and preferred(accepted(request), ["application/json"])
    offers = _FORMATS | {"application/octet-stream": _FIRST}
    if only_started and preferred(accepted(request), list(offers)) is None:
        return _FIRST  # the answer is the job
    return negotiated(request, offers, "a subset comes")


def _submit(
    service: Service, caller: Caller, body: NewPrune | PruneForm, file: Incoming | None, wanted: SubsetFormat
) -> Submitted:
    if isinstance(body, NewPrune):
        file = uploads.inline(body.rows)
    assert file is not None, "a form without a file"
    return submission.prune(service, caller, body, file, name=body.name, mapping=body.mapping, format=wanted)


def _subset(service: Service, caller: Caller, request: Request, export: str) -> Response:
    file = exports.file(service, caller, export)
    answer = download(request, file, file.dataset + file.suffix)
    answer.headers["Content-Location"] = f"/v1/exports/{export}/file"  # where a repetition is sent
    return answer
