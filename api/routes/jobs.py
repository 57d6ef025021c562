"""Jobs: what they do, how far they are, and how to stop them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.dependencies import Reader, ServiceDep, Writer
from api.job_answers import changes
from api.paging import IdPage, page
from datapruner.schemas.common import Page
from datapruner.schemas.jobs import JobAnswer, JobKind, JobState
from datapruner.service import jobs

router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.get("", operation_id="list_jobs")
def list_jobs(
    service: ServiceDep,
    caller: Reader,
    paging: IdPage,
    state: Annotated[JobState | None, Query(description="only jobs in this state")] = None,
    kind: Annotated[JobKind | None, Query(description="only jobs of this kind")] = None,
) -> Page[JobAnswer]:
    """Jobs, the newest first."""
    found = jobs.listing(service, caller, limit=paging.limit + 1, before=paging.after, state=state, kind=kind)
    return page(found, paging.limit, lambda job: job.id)


@router.get("/{job}", operation_id="get_job")
def get_job(service: ServiceDep, caller: Reader, job: str) -> JobAnswer:
    """A job: state, progress, attempts, error, and links to what came of it."""
    return jobs.show(service, caller, job)


@router.post("/{job}/cancel", operation_id="cancel_job")
def cancel_job(service: ServiceDep, caller: Writer, job: str) -> JobAnswer:
    """Stop a job: at once while it waits, within a shard while it runs. One that has ended stays as it is."""
    return jobs.cancel(service, caller, job)


def _watched(service: ServiceDep, caller: Reader, job: str) -> str:
    """The job's id, looked up before the stream begins: once it has, there is no 404 to answer with."""
    return jobs.show(service, caller, job).id


@router.get("/{job}/events", operation_id="watch_job", response_class=EventSourceResponse)
async def watch_job(
    service: ServiceDep,
    job_id: Annotated[str, Depends(_watched)],
    last_event_id: Annotated[str, Header(description="`id` of the last event seen")] = "",
) -> AsyncIterator[ServerSentEvent]:
    """The job as it changes, as server-sent events `job`, until it has ended.

    Only the newest state is sent when several changes come at once. `Last-Event-ID` leaves out what was seen.
    """
    seen = int(last_event_id) if last_event_id.isdecimal() and len(last_event_id) < 19 else -1
    async for number, job in changes(service, job_id, after=seen):
        yield ServerSentEvent(event="job", id=str(number), data=job)
