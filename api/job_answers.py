"""Answers to requests that start a job: that it was started or, with `Prefer: wait=N`, what came of it.

The work is done by other processes. Waiting for it is asking the database, seldom enough not to disturb it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable

from fastapi import Request, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel

from api import problems
from datapruner.errors import UsageError
from datapruner.schemas.jobs import JobAnswer
from datapruner.service import jobs
from datapruner.service.instance import Service

LONGEST = 600.0
_SOONEST, _SELDOM = 0.02, 0.5
_SLOWER = 1.05  # so that an answer comes about a twentieth later than it could
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([^\s\",;]+)\"?", re.IGNORECASE)


def accepted(job: JobAnswer) -> Response:
    """202: the job was started, and where it can be watched."""
    return Response(
        job.model_dump_json(),
        status.HTTP_202_ACCEPTED,
        headers={"Location": job.links["self"]},
        media_type="application/json",
    )


async def started(
    service: Service, request: Request, job: JobAnswer, made: Callable[[], BaseModel | Response]
) -> Response:
    """202 with the job; with `Prefer: wait=N` what `made` returns once the job has succeeded, a body with
    201, or the problem that it failed with. `made` may ask the database. Raises UsageError for a malformed
    header."""
    seconds = preferred_wait(request)
    if seconds is None:
        return accepted(job)
    job = await _wait_for(service, job.id, seconds)
    if job.state == "succeeded":
        answer = await run_in_threadpool(made)
        if isinstance(answer, BaseModel):
            body = answer.model_dump_json()
            answer = Response(body, status.HTTP_201_CREATED, media_type="application/json")
    elif job.state == "failed":
        assert job.error is not None, job.id
        answer = problems.response(job.error.model_dump(), request.state.request_id)
    else:
        answer = accepted(job)
    answer.headers["Location"] = job.links["self"]
    answer.headers["Preference-Applied"] = f"wait={seconds:.0f}"
    return answer


def preferred_wait(request: Request) -> float | None:
    """Seconds that `Prefer: wait=N` asks for, at most `LONGEST`; None without it. Raises UsageError."""
    found = _WAIT.search(",".join(request.headers.getlist("prefer")))
    if found is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", found[1]):
        raise UsageError(
            "Prefer: wait is not a number of seconds", field="Prefer", remedy="give a whole number: wait=60"
        )
    return min(float(found[1]), LONGEST)


async def changes(service: Service, job_id: str, after: int = -1) -> AsyncIterator[tuple[int, JobAnswer]]:
    """The job after every change with a number above `after`, with that number; ends with the job or the
    service."""
    while not service.stopping.ended.is_set():
        number, job = await run_in_threadpool(jobs.now, service, job_id)
        if number > after:
            after = number
            yield number, job
        if job.finished_at is not None:
            return
        await asyncio.sleep(_SELDOM / 2)


async def _wait_for(service: Service, job_id: str, seconds: float) -> JobAnswer:
    """The job when it has finished, or as it is after `seconds` or when the service stops."""
    until = time.monotonic() + seconds
    pause = _SOONEST
    while True:
        _, job = await run_in_threadpool(jobs.now, service, job_id)
        left = until - time.monotonic()
        if job.finished_at is not None or left <= 0 or service.stopping.ended.is_set():
            return job
        await asyncio.sleep(min(pause, left))
        pause = min(pause * _SLOWER, _SELDOM)
