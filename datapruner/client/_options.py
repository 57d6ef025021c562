"""Keyword arguments that mirror the fields of request bodies; a test compares them with the schemas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Required, TypedDict

from datapruner.request.config import Engine, Measuring, MeasuringSettings
from datapruner.request.keep import Keep
from datapruner.rows.formats import AnyExportFormat
from datapruner.schemas.datasets import HubSource, PathSource, UrlSource
from datapruner.schemas.projects import Scope

AnySource = HubSource | PathSource | UrlSource | Mapping[str, Any]


class RunOptions(TypedDict, total=False):
    """What to run: `datapruner.schemas.runs.RunRequest`."""

    method: str | Sequence[str] | None
    methods: str | Sequence[str] | None
    keep: float | int | str | Mapping[str, float] | Keep | None
    keep_tokens: int | None
    token_keep: float | None
    preset: str | None
    options: Mapping[str, Any]
    measuring: Measuring | MeasuringSettings
    target: str | Mapping[str, str] | None
    task_column: str | None
    seed: int
    engine: Engine | None
    recipe: str | Mapping[str, Any] | None


class EvaluationOptions(TypedDict, total=False):
    """How to evaluate a run: `datapruner.schemas.evaluations.NewEvaluation`."""

    held_out: Required[Mapping[str, str]]
    model: str | None
    tuning: Literal["lora", "full"]
    seeds: int
    seconds: float | None
    seed: int


class Retention(TypedDict, total=False):
    """`datapruner.schemas.datasets.Retention`; None keeps all."""

    keep_versions: int | None
    keep_runs: int | None


class DatasetOptions(Retention, total=False):
    """Beside the rows of a new dataset: `datapruner.schemas.datasets.NewDataset`."""

    mapping: Mapping[str, str]


class ScheduleOptions(Retention, total=False):
    """Beside dataset, cron and run: `datapruner.schemas.schedules.NewSchedule`."""

    timezone: str
    name: str | None
    export: AnyExportFormat | None
    source: AnySource | None
    overlap: Literal["skip", "queue"]
    webhook: str | None


class ScheduleChanges(TypedDict, total=False):
    """`datapruner.schemas.schedules.ChangedSchedule`."""

    cron: str
    timezone: str
    overlap: Literal["skip", "queue"]
    paused: bool


class Quotas(TypedDict, total=False):
    """`datapruner.schemas.projects.Quotas`; None lifts one."""

    quota_rows: int | None
    quota_bytes: int | None
    quota_jobs: int | None


class TokenOptions(TypedDict, total=False):
    """Beside the name of a new token: `datapruner.schemas.projects.NewToken`."""

    scopes: Sequence[Scope]
    project: str | None
    max_jobs: int | None
    expires_in_days: float | None
