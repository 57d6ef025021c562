"""Evaluations: models trained on what a run kept and on controls, and read on held-out rows."""

from __future__ import annotations

from fastapi import APIRouter, Request, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from api.dependencies import Reader, ServiceDep, Writer
from api.job_answers import started
from api.paging import IdPage, page
from datapruner.schemas.common import Page
from datapruner.schemas.evaluations import EvaluationAnswer, NewEvaluation
from datapruner.schemas.jobs import JobAnswer
from datapruner.service import evaluations, submission

router = APIRouter(prefix="/runs/{run}/evaluations", tags=["evaluations"])


@router.post(
    "",
    operation_id="create_evaluation",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobAnswer,
    responses={201: {"model": EvaluationAnswer, "description": "The evaluation, with `Prefer: wait=N`"}},
)
async def create_evaluation(
    request: Request, service: ServiceDep, caller: Writer, run: str, body: NewEvaluation
) -> Response:
    """Find out whether what a run kept is better to train on than random rows, by training on both.

    With `Prefer: wait=N` the answer is the finished evaluation when it takes at most N seconds.
    """
    submitted = await run_in_threadpool(submission.evaluate, service, caller, run, body)
    return await started(
        service, request, submitted.job, lambda: evaluations.show(service, caller, run, submitted.made)
    )


@router.get("", operation_id="list_evaluations")
def list_evaluations(service: ServiceDep, caller: Reader, run: str, paging: IdPage) -> Page[EvaluationAnswer]:
    """Evaluations of a run, the newest first."""
    found = evaluations.listing(service, caller, run, limit=paging.limit + 1, before=paging.after)
    return page(found, paging.limit, lambda evaluation: evaluation.id)


@router.get("/{evaluation}", operation_id="get_evaluation")
def get_evaluation(service: ServiceDep, caller: Reader, run: str, evaluation: str) -> EvaluationAnswer:
    """An evaluation: how it stands, and its verdict."""
    return evaluations.show(service, caller, run, evaluation)
