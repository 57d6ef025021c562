"""Jobs as whoever asked for them sees them. What the queue does with them is in `service.queue`."""

from __future__ import annotations

from datapruner.catalog import jobs
from datapruner.catalog.models import Job
from datapruner.errors import NotFoundError
from datapruner.schemas.jobs import JobAnswer
from datapruner.service import queue
from datapruner.service.instance import Service
from datapruner.service.tokens import Caller


def answer(job: Job) -> JobAnswer:
    """A job with the paths of itself and of what came of it."""
    columns = {name: getattr(job, name) for name in JobAnswer.model_fields if name != "links"}
    return JobAnswer.model_validate(columns | {"links": _links(job)})


def listing(
    service: Service,
    caller: Caller,
    *,
    limit: int,
    before: str | None = None,
    state: str | None = None,
    kind: str | None = None,
) -> list[JobAnswer]:
    """The newest `limit` jobs, those older than the id `before` if it is given."""
    with service.db.read() as session:
        found = jobs.listing(session, caller.project_id, limit=limit, before=before, state=state, kind=kind)
    return [answer(job) for job in found]


def show(service: Service, caller: Caller, job_id: str) -> JobAnswer:
    """Raises NotFoundError."""
    with service.db.read() as session:
        return answer(jobs.find(session, caller.project_id, job_id))


def cancel(service: Service, caller: Caller, job_id: str) -> JobAnswer:
    """Cancel a job, see `queue.request_cancel`. Raises NotFoundError."""
    with service.db.write() as session:
        return answer(queue.request_cancel(session, jobs.find(session, caller.project_id, job_id)))


def now(service: Service, job_id: str) -> tuple[int, JobAnswer]:
    """The number of its last change, and the job as it is after that. Raises NotFoundError."""
    with service.db.read() as session:
        job = session.get(Job, job_id)
    if job is None:
        raise NotFoundError(f"no job {job_id!r}")
    return job.sequence, answer(job)


def _links(job: Job) -> dict[str, str]:
    result = job.result or {}
    links = {"self": f"/v1/jobs/{job.id}", "events": f"/v1/jobs/{job.id}/events"}
    if dataset := result.get("dataset_id"):
        links["dataset"] = f"/v1/datasets/{dataset}"
        if version := result.get("version"):
            links["version"] = f"/v1/datasets/{dataset}/versions/{version}"
    if run := result.get("run_id"):
        links["run"] = f"/v1/runs/{run}"
    if export := result.get("export_id"):
        links["export"] = f"/v1/exports/{export}"
        links["subset"] = f"/v1/exports/{export}/file"
    if evaluation := result.get("evaluation_id"):
        links["evaluation"] = f"/v1/runs/{run}/evaluations/{evaluation}"
    return links
