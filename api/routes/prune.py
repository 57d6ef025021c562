"""The one-call door: rows in, subset out."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from api.dependencies import ServiceDep, Writer
from api.downloads import download
from api.forms import PruneForm
from api.negotiation import preferred
from api.starting import started
from api.uploads import received, two_bodies
from api.waiting import preferred_wait
from datapruner.catalog import datasets, exports, runs
from datapruner.catalog.models import Export, Job, new_id
from datapruner.input.shapes import RowParser
from datapruner.request.asked import how_much_is_missing
from datapruner.schemas.datasets import UploadSource
from datapruner.schemas.exports import MEDIA_TYPES, SUFFIXES, ExportFormat
from datapruner.schemas.jobs import JobAnswer
from datapruner.schemas.prune import NewPrune
from datapruner.service import comparison_sets, queue, uploads
from datapruner.service.allowed_models import check_models
from datapruner.service.instance import Service
from datapruner.service.tokens import Caller
from datapruner.service.uploads import Incoming

router = APIRouter(tags=["prune"])

_FORMATS: tuple[ExportFormat, ...] = ("parquet", "plain-jsonl")
_BYTES = {"schema": {"type": "string", "format": "binary"}}


@router.post(
    "/prune",
    operation_id="prune",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobAnswer,
    responses={
        200: {
            "description": "The subset, with `Prefer: wait=N`",
            "content": {MEDIA_TYPES[name]: _BYTES for name in _FORMATS},
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
        name, export, job = await run_in_threadpool(_start, service, caller, body, file, wanted)
    return await started(service, request, job, lambda: _subset(service, request, export.id, name))


def _format(request: Request) -> ExportFormat:
    """What the subset is to be written as. Raises HTTPException 406."""
    offers = {MEDIA_TYPES[name]: name for name in _FORMATS} | {"application/octet-stream": _FORMATS[0]}
    accept = ",".join(request.headers.getlist("accept"))
    if (found := preferred(accept, list(offers))) is not None:
        return offers[found]
    if preferred_wait(request) is None and preferred(accept, ["application/json"]) is not None:
        return _FORMATS[0]  # the answer is the job
    raise HTTPException(
        status.HTTP_406_NOT_ACCEPTABLE,
        f"a subset comes as {' or '.join(MEDIA_TYPES[name] for name in _FORMATS)}",
    )


def _start(
    service: Service, caller: Caller, body: NewPrune | PruneForm, file: Incoming | None, wanted: ExportFormat
) -> tuple[str, Export, Job]:
    request = body if isinstance(body, NewPrune) else body.run()
    RowParser(body.mapping)  # raises UsageError for a role that there is not
    config = request.config(body.mapping, service.sql.run)
    if config.keep is None:
        raise how_much_is_missing()
    check_models(service.settings, config.measuring)
    if isinstance(body, NewPrune):
        file = uploads.inline(body.rows)
    name = body.name or new_id("prune")
    with service.db.read() as session:
        datasets.check_free(session, caller.project_id, name)
        config = comparison_sets.pinned(session, caller.project_id, config)
    with uploads.transaction(service.db, service.storage, caller.project_id, file) as (session, upload):
        assert upload is not None, name
        dataset = datasets.create(session, caller.project_id, name, mapping=body.mapping)
        source = UploadSource(upload_id=upload.id).model_dump()
        job = queue.submit(
            session,
            project_id=caller.project_id,
            kind="prune",
            payload={
                "ingest": {"dataset_id": dataset.id, "source": source, "mode": "create"},
                "run": {
                    "dataset_id": dataset.id,
                    "version_id": None,
                    "config": config.model_dump(mode="json"),
                },
                "export": {"format": wanted},
            },
            token_id=caller.token_id,
            request_id=caller.request_id,
            max_attempts=service.settings.max_attempts,
        )
        owner = {"project_id": caller.project_id, "job_id": job.id}
        run = runs.create(session, dataset_id=dataset.id, version_id=None, config=config, **owner)
        export = exports.create(session, run_id=run.id, format=wanted, **owner)
        return name, export, job


def _subset(service: Service, request: Request, export_id: str, name: str) -> Response:
    with service.db.read() as session:
        export = session.get_one(Export, export_id)
    assert export.key is not None, export_id
    assert export.sha256 is not None, export_id
    assert export.published_at is not None, export_id
    answer = download(
        request,
        service.storage.local(export.key),
        sha256=export.sha256,
        modified=export.published_at,
        filename=name + SUFFIXES[export.format],
        media_type=MEDIA_TYPES[export.format],
    )
    answer.headers["Content-Location"] = f"/v1/exports/{export_id}/file"  # where a repetition is sent
    return answer
