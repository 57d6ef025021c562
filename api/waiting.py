"""Waiting inside a request: for a job (`Prefer: wait=N`), for its changes, and for a statement.

The work is done by other processes. Waiting for a job is asking the database, seldom enough not to disturb
it; a statement runs for nobody but who asked, and ends when they go away.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from datapruner.catalog.models import FINISHED, Job
from datapruner.errors import NotFoundError, UsageError
from datapruner.query.ending import EndedError, Ending
from datapruner.service.instance import Service

T = TypeVar("T")
LONGEST = 600.0
_SOONEST, _SELDOM = 0.1, 0.5
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([^\s\",;]+)\"?", re.IGNORECASE)


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


async def wait_for(service: Service, job_id: str, seconds: float) -> Job:
    """The job when it has finished, or as it is after `seconds` or when the service stops."""
    until = time.monotonic() + seconds
    pause = _SOONEST
    while True:
        job = await run_in_threadpool(load, service, job_id)
        left = until - time.monotonic()
        if job.state in FINISHED or left <= 0 or service.stopping.is_set():
            return job
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.2, _SELDOM)


async def changes(service: Service, job_id: str, after: int = -1) -> AsyncIterator[Job]:
    """The job after every change with a sequence above `after`; ends with the job or the service."""
    while not service.stopping.is_set():
        job = await run_in_threadpool(load, service, job_id)
        if job.sequence > after:
            after = job.sequence
            yield job
        if job.state in FINISHED:
            return
        await asyncio.sleep(_SELDOM / 2)


def load(service: Service, job_id: str) -> Job:
    """The job as it is now. Raises NotFoundError."""
    with service.db.read() as session:
        job = session.get(Job, job_id)
    if job is None:
        raise NotFoundError(f"no job {job_id!r}")
    return job


async def while_wanted(request: Request, work: Callable[[Ending], T]) -> T:
    """What `work` gives in a thread, whose statement ends when the client goes away or the service stops.

    The request's body has been read. Raises ClientDisconnect.
    """
    ending = Ending()
    watching = asyncio.create_task(_end_when_gone(request, ending))
    try:
        return await run_in_threadpool(work, ending)
    except EndedError as error:
        raise ClientDisconnect from error
    finally:
        watching.cancel()
        ending.end()  # this may be the end of the service, while the thread goes on


async def _end_when_gone(request: Request, ending: Ending) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    ending.end()
