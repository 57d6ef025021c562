"""Runs: ask for one, see what came of it, and why."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, Response

from api.dependencies import Reader, ServiceDep, Writer
from api.job_answers import started
from api.paging import IdPage, RowPage, page
from datapruner.schemas.common import Page
from datapruner.schemas.datasets import Deleted
from datapruner.schemas.jobs import JobAnswer
from datapruner.schemas.reports import RunReport
from datapruner.schemas.runs import Comparison, MaskAnswer, NewRun, ReportAnswer, RunAnswer, SampleAnswer
from datapruner.service import runs, submission

router = APIRouter(prefix="/runs", tags=["runs"])


@router.post(
    "",
    operation_id="create_run",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobAnswer,
    responses={201: {"model": RunAnswer, "description": "The run, with `Prefer: wait=N`"}},
)
async def create_run(request: Request, service: ServiceDep, caller: Writer, body: NewRun) -> Response:
    """Prune a dataset, or score it. Rows that this project measured before are not measured again.

    With `Prefer: wait=N` the answer is the finished run when it takes at most N seconds.
    """
    submitted = await run_in_threadpool(submission.run, service, caller, body)
    return await started(service, request, submitted.job, lambda: runs.show(service, caller, submitted.made))


@router.get("", operation_id="list_runs")
def list_runs(
    service: ServiceDep,
    caller: Reader,
    paging: IdPage,
    dataset: Annotated[str | None, Query(description="only runs of this dataset")] = None,
) -> Page[RunAnswer]:
    """Runs, the newest first."""
    found = runs.listing(service, caller, limit=paging.limit + 1, before=paging.after, dataset=dataset)
    return page(found, paging.limit, lambda run: run.id)


@router.get("/{run}", operation_id="get_run")
def get_run(service: ServiceDep, caller: Reader, run: str) -> RunAnswer:
    """A run: how it stands, and what came of it."""
    return runs.show(service, caller, run)


@router.delete("/{run}", operation_id="delete_run")
def delete_run(
    service: ServiceDep,
    caller: Writer,
    run: str,
    cascade: Annotated[bool, Query(description="delete its exports and evaluations too")] = False,
    dry_run: Annotated[bool, Query(description="only say what would be deleted")] = False,
) -> Deleted:
    """Delete a run and its files. Its measurements stay for other runs to use."""
    return runs.delete(service, caller, run, cascade=cascade, dry_run=dry_run)


@router.post("/{run}/cancel", operation_id="cancel_run")
def cancel_run(service: ServiceDep, caller: Writer, run: str) -> JobAnswer:
    """Stop the job that does the run; nothing happens when it has ended."""
    return runs.cancel(service, caller, run)


@router.get("/{run}/report", operation_id="get_report")
def get_report(service: ServiceDep, caller: Reader, run: str) -> ReportAnswer:
    """What became of every row, with the configuration and lineage that replay the run."""
    return runs.report(service, caller, run)


@router.get("/{run}/report.json", operation_id="get_full_report")
def get_full_report(service: ServiceDep, caller: Reader, run: str) -> RunReport:
    """Everything that came of a run, as numbers: distributions, the plane, examples, evaluations."""
    return runs.full_report(service, caller, run)


@router.get(
    "/{run}/report.html",
    operation_id="get_report_page",
    response_class=HTMLResponse,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
def get_report_page(service: ServiceDep, caller: Reader, run: str) -> HTMLResponse:
    """The same as an HTML page that needs nothing else."""
    page = runs.report_page(service, caller, run)
    return HTMLResponse(page.html, headers={"Content-Security-Policy": page.policy})


@router.get("/{run}/masks", operation_id="list_masks")
def list_masks(service: ServiceDep, caller: Reader, run: str, paging: RowPage) -> Page[MaskAnswer]:
    """Which tokens of which samples to train on, in row order."""
    found = runs.masks(service, caller, run, limit=paging.limit + 1, after=paging.after)
    return page(found, paging.limit, lambda mask: mask.row)


@router.get("/{run}/samples/{sample}", operation_id="explain_sample")
def explain_sample(service: ServiceDep, caller: Reader, run: str, sample: str) -> SampleAnswer:
    """Why a sample was kept or pruned. `sample`: a row number, or a sample id or enough of its start."""
    return runs.explain(service, caller, run, sample)


@router.get("/{run}/compare/{other}", operation_id="compare_runs")
def compare_runs(service: ServiceDep, caller: Reader, run: str, other: str) -> Comparison:
    """What two runs, of any versions, make of the samples that both know."""
    return runs.compare(service, caller, run, other)
