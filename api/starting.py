"""The answer to a request that starts a job: that it was started or, when preferred, what came of it."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel

from api import problems
from api.answers import accepted, job_path
from api.waiting import preferred_wait, wait_for
from datapruner.catalog.models import Job
from datapruner.service.instance import Service


async def started(
    service: Service, request: Request, job: Job, made: Callable[[], BaseModel | Response]
) -> Response:
    """202 with the job; with `Prefer: wait=N` what `made` returns once the job has succeeded, a body with
    201, or the problem that it failed with. `made` may ask the database. Raises UsageError for a malformed
    header."""
    seconds = preferred_wait(request)
    if seconds is None:
        return accepted(job)
    job = await wait_for(service, job.id, seconds)
    if job.state == "succeeded":
        answer = await run_in_threadpool(made)
        if isinstance(answer, BaseModel):
            body = answer.model_dump_json()
            answer = Response(body, status.HTTP_201_CREATED, media_type="application/json")
    elif job.state == "failed":
        assert job.error is not None, job.id
        answer = problems.response(job.error, request.state.request_id)
    else:
        answer = accepted(job)
    answer.headers["Location"] = job_path(job.id)
    answer.headers["Preference-Applied"] = f"wait={seconds:.0f}"
    return answer
