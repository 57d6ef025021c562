"""Schedules: curation jobs that come back."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, HttpUrl

from datapruner.rows.formats import AnyExportFormat
from datapruner.schemas.common import Answer, Moment, Name, Request
from datapruner.schemas.datasets import RereadSource
from datapruner.schemas.runs import RunRequest


class NewSchedule(Request):
    dataset: str = Field(description="name or id")
    cron: str = Field(max_length=200, description="five fields: minute, hour, day of month, month, weekday")
    timezone: str = Field("UTC", max_length=100, description="name in the tz database")
    run: RunRequest
    name: Name | None = Field(None, description="default: made of the dataset's name")
    export: AnyExportFormat | None = Field(
        "parquet", description="what to export after the run; null: nothing, as of one that only scores"
    )
    source: RereadSource | None = Field(None, description="where new rows come from; default: the dataset's")
    overlap: Literal["skip", "queue"] = Field("skip", description="when the fire before still works")
    webhook: HttpUrl | None = Field(None, description="told when a job of this schedule ends")
    keep_versions: int | None = Field(None, ge=1, le=1_000_000, description="retention of the dataset")
    keep_runs: int | None = Field(None, ge=1, le=1_000_000, description="retention of the dataset")


class ChangedSchedule(Request):
    """Fields that are left out stay as they are."""

    cron: str | None = Field(None, max_length=200)
    timezone: str | None = Field(None, max_length=100)
    overlap: Literal["skip", "queue"] | None = None
    paused: bool | None = None


class ScheduleAnswer(Answer):
    id: str
    name: str
    dataset_id: str
    dataset: str
    cron: str
    timezone: str
    run: dict[str, Any]
    export_format: str | None
    evaluation: dict[str, Any] | None
    """What the recipe evaluates each run by."""
    source: dict[str, Any] | None
    overlap: Literal["skip", "queue"]
    webhook_url: str | None
    paused: bool
    next_fire_at: Moment | None
    next_fires: list[Moment] = Field([])
    created_at: Moment


class NewScheduleAnswer(ScheduleAnswer):
    """`webhook_secret` signs the deliveries (standardwebhooks.com); it is shown this once."""

    webhook_secret: str | None


class FireAnswer(Answer):
    id: str
    fire_at: Moment
    outcome: Literal["started", "skipped"]
    job_id: str | None
    state: str | None
    """Of the job; null when skipped."""


class DeliveryAnswer(Answer):
    id: str
    job_id: str
    attempt: int
    status: int | None
    error: str | None
    seconds: float
    created_at: Moment
