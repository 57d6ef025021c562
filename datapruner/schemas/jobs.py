"""Jobs: what the queue does, and how far it is."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from datapruner.problem import Problem
from datapruner.schemas.common import Answer, Moment

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
JobKind = Literal["ingest", "run", "export", "evaluate", "prune", "schedule", "webhook"]


class Progress(BaseModel):
    """How far a job is. `done` and `total` are in `unit` of the current `stage`."""

    stage: str
    done: int = 0
    total: int | None = None
    unit: str = ""
    rows: int = 0
    """Samples measured so far."""
    tokens: int = 0
    """Tokens measured so far."""
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    notes: list[str] = Field([])


class JobResult(BaseModel):
    """Ids of what came of a job. `new_rows` is null when nothing was ingested. `measured`: samples that this
    job measured, 0 when a schedule found nothing new and its last run stands."""

    dataset_id: str | None = None
    version_id: str | None = None
    version: int | None = None
    new_rows: int | None = None
    run_id: str | None = None
    measured: int | None = None
    export_id: str | None = None
    evaluation_id: str | None = None


class JobAnswer(Answer):
    id: str
    kind: JobKind
    state: JobState
    priority: int
    attempt: int
    max_attempts: int
    cancel_requested: bool
    schedule_id: str | None
    progress: Progress | None
    result: JobResult | None
    error: Problem | None
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    links: dict[str, str] = Field({})
    """Paths of the job, and of the dataset, run, subset and evaluation that came of it."""
