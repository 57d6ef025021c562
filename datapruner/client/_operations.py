"""Every operation of the service, by its operation id, as a function that describes the request.

A test compares the names here with those of `openapi.json`. Nothing is sent by anything in this file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from datapruner.client._options import (
    AnySource,
    DatasetOptions,
    EvaluationOptions,
    Quotas,
    Retention,
    RunOptions,
    ScheduleChanges,
    ScheduleOptions,
    TokenOptions,
)
from datapruner.client._request import Request, at, binary, body, checked, encoded, nothing, reading, text
from datapruner.errors import UsageError
from datapruner.rows.formats import AnyExportFormat, TooLong
from datapruner.schemas import (
    datasets,
    evaluations,
    exports,
    jobs,
    methods,
    projects,
    reports,
    runs,
    schedules,
    sql,
)
from datapruner.schemas.common import Page

Rows = Iterable[Mapping[str, Any]]
Data = str | Path | Rows
"""A file, by its path, or rows."""


# The one-call door


def prune(
    data: Data,
    *,
    name: str | None = None,
    mapping: Mapping[str, str] | None = None,
    export: exports.SubsetFormat = "parquet",
    **run: Unpack[RunOptions],
) -> Request[jobs.JobAnswer]:
    """Start pruning a file or rows, which become the dataset `name`; see `schemas.prune.NewPrune`."""
    fields = checked(runs.RunRequest, **run) | given(name=name, mapping=mapping and dict(mapping))
    if isinstance(data, str | Path):
        fields |= fields.pop("measuring", {})  # a form has no fields within fields
    headers = {"Accept": f"{exports.MEDIA_TYPES[export]}, application/json;q=0.5"}
    return replace(_carrying("/prune", data, fields), headers=headers)


# Datasets


def create_dataset(
    name: str, data: Data | None = None, *, source: AnySource | None = None, **options: Unpack[DatasetOptions]
) -> Request[jobs.JobAnswer]:
    """Start making a dataset from a file, from rows, or from a source that the service reads itself."""
    _one_of(data, source)
    fields = checked(datasets.NewDataset, name=name, **given(source=source), **options)
    return _carrying("/datasets", data, fields)


def list_datasets(*, unnamed: bool = False) -> Request[Page[datasets.DatasetAnswer]]:
    """The datasets, the newest first; with `unnamed` those too that nobody named."""
    request = Request("GET", "/datasets", reading(Page[datasets.DatasetAnswer]))
    return request.asking(unnamed="true" if unnamed else None)


def get_dataset(dataset: str) -> Request[datasets.DatasetAnswer]:
    """A dataset by its name or id."""
    return Request("GET", at("/datasets/{dataset}", dataset=dataset), reading(datasets.DatasetAnswer))


def change_dataset(dataset: str, **retention: Unpack[Retention]) -> Request[datasets.DatasetAnswer]:
    """Set how many versions and runs to keep; None keeps all, what is left out stays."""
    content = body(datasets.Retention, **retention)
    return Request(
        "PATCH", at("/datasets/{dataset}", dataset=dataset), reading(datasets.DatasetAnswer), content=content
    )


def delete_dataset(
    dataset: str, *, cascade: bool = False, dry_run: bool = False
) -> Request[datasets.Deleted]:
    """Delete a dataset, with `cascade` its runs and schedules too; with `dry_run` say what that would be."""
    return _delete(at("/datasets/{dataset}", dataset=dataset), cascade=cascade, dry_run=dry_run)


def add_version(
    dataset: str, data: Data | None = None, *, source: AnySource | None = None, only_new: bool = False
) -> Request[jobs.JobAnswer]:
    """Start appending rows as a new version; without any, the dataset's own source is read again."""
    if data is not None:
        _one_of(data, source)
    fields = checked(datasets.NewVersion, only_new=only_new, **given(source=source))
    return _carrying(at("/datasets/{dataset}/versions", dataset=dataset), data, fields)


def list_versions(dataset: str) -> Request[Page[datasets.VersionAnswer]]:
    """The versions of a dataset, the newest first."""
    path = at("/datasets/{dataset}/versions", dataset=dataset)
    return Request("GET", path, reading(Page[datasets.VersionAnswer]))


def get_version(dataset: str, number: int) -> Request[datasets.VersionAnswer]:
    """One version of a dataset."""
    return Request("GET", _version(dataset, number), reading(datasets.VersionAnswer))


def list_rejects(dataset: str, number: int) -> Request[Page[datasets.Reject]]:
    """The rows of a version that are no samples, and why."""
    return Request("GET", f"{_version(dataset, number)}/rejects", reading(Page[datasets.Reject]))


def preview_samples(dataset: str, number: int) -> Request[Page[datasets.PreviewSample]]:
    """The samples of a version as conversations."""
    return Request("GET", f"{_version(dataset, number)}/samples", reading(Page[datasets.PreviewSample]))


# Runs


def create_run(
    dataset: str, *, version: int | None = None, **run: Unpack[RunOptions]
) -> Request[jobs.JobAnswer]:
    """Start a run over a version of a dataset, by default the latest."""
    content = body(runs.NewRun, dataset=dataset, version=version, **run)
    return Request("POST", "/runs", reading(jobs.JobAnswer), content=content)


def list_runs(*, dataset: str | None = None) -> Request[Page[runs.RunAnswer]]:
    """The runs, of one dataset or of all, the newest first."""
    return Request("GET", "/runs", reading(Page[runs.RunAnswer])).asking(dataset=dataset)


def get_run(run: str) -> Request[runs.RunAnswer]:
    """A run."""
    return Request("GET", at("/runs/{run}", run=run), reading(runs.RunAnswer))


def delete_run(run: str, *, cascade: bool = False, dry_run: bool = False) -> Request[datasets.Deleted]:
    """Delete a run, with `cascade` all that came of it too; with `dry_run` say what that would be."""
    return _delete(at("/runs/{run}", run=run), cascade=cascade, dry_run=dry_run)


def cancel_run(run: str) -> Request[jobs.JobAnswer]:
    """Cancel the job of a run."""
    return Request("POST", at("/runs/{run}/cancel", run=run), reading(jobs.JobAnswer))


def get_report(run: str) -> Request[runs.ReportAnswer]:
    """What became of the input of a run, and what replays it."""
    return Request("GET", at("/runs/{run}/report", run=run), reading(runs.ReportAnswer))


def get_full_report(run: str) -> Request[reports.RunReport]:
    """Everything that came of a run, as numbers: distributions, the plane, examples, evaluations."""
    return Request("GET", at("/runs/{run}/report.json", run=run), reading(reports.RunReport))


def get_report_page(run: str) -> Request[str]:
    """The same as an HTML page that needs nothing else."""
    return Request("GET", at("/runs/{run}/report.html", run=run), text)


def list_masks(run: str) -> Request[Page[runs.MaskAnswer]]:
    """The kept tokens of every kept sample of a run, in row order."""
    return Request("GET", at("/runs/{run}/masks", run=run), reading(Page[runs.MaskAnswer]))


def explain_sample(run: str, sample: str | int) -> Request[runs.SampleAnswer]:
    """Everything that is known of one sample, by its row (a number) or the start of its id."""
    path = at("/runs/{run}/samples/{sample}", run=run, sample=sample)
    return Request("GET", path, reading(runs.SampleAnswer))


def compare_runs(run: str, other: str) -> Request[runs.Comparison]:
    """How two runs differ in what they keep, and how their scores correlate."""
    return Request("GET", at("/runs/{run}/compare/{other}", run=run, other=other), reading(runs.Comparison))


# Evaluations


def create_evaluation(run: str, **settings: Unpack[EvaluationOptions]) -> Request[jobs.JobAnswer]:
    """Start finding out whether what a run kept is better to train on than random rows."""
    content = body(evaluations.NewEvaluation, **settings)
    return Request("POST", _evaluations(run), reading(jobs.JobAnswer), content=content)


def list_evaluations(run: str) -> Request[Page[evaluations.EvaluationAnswer]]:
    """The evaluations of a run, the newest first."""
    return Request("GET", _evaluations(run), reading(Page[evaluations.EvaluationAnswer]))


def get_evaluation(run: str, evaluation: str) -> Request[evaluations.EvaluationAnswer]:
    """An evaluation of a run."""
    path = at("/runs/{run}/evaluations/{evaluation}", run=run, evaluation=evaluation)
    return Request("GET", path, reading(evaluations.EvaluationAnswer))


# Exports


def create_export(
    run: str,
    format: AnyExportFormat = "parquet",  # noqa: A002
    *,
    max_length: int | None = None,
    too_long: TooLong = "cut",
) -> Request[jobs.JobAnswer]:
    """Start writing the subset of a run as a file; the limit is of rows for trainers."""
    limit = {"max_length": max_length, "too_long": too_long}
    content = body(exports.NewExport, run=run, format=format, **limit)
    return Request("POST", "/exports", reading(jobs.JobAnswer), content=content)


def list_exports(*, run: str | None = None) -> Request[Page[exports.ExportAnswer]]:
    """The exports, of one run or of all, the newest first."""
    return Request("GET", "/exports", reading(Page[exports.ExportAnswer])).asking(run=run)


def get_export(export: str) -> Request[exports.ExportAnswer]:
    """An export."""
    return Request("GET", at("/exports/{export}", export=export), reading(exports.ExportAnswer))


def get_card(
    export: str,
    *,
    license: str | None = None,  # noqa: A002
    file: str | None = None,
) -> Request[bytes]:
    """The dataset card of an export: a tar archive of a folder, to be unpacked beside the `file`."""
    path = at("/exports/{export}/card", export=export)
    return Request("GET", path, binary).asking(license=license, file=file)


def delete_export(export: str) -> Request[datasets.Deleted]:
    """Delete an export and its file."""
    return _delete(at("/exports/{export}", export=export))


def download_export(export: str, *, start: int = 0, etag: str | None = None) -> Request[None]:
    """The file of an export from byte `start` on, as long as it is still the one with that `etag`."""
    headers = {"Accept-Encoding": "identity"}  # so that bytes count as they are in the file
    if start:
        headers["Range"] = f"bytes={start}-"
        if etag is not None:
            headers["If-Range"] = etag
    return Request("GET", at("/exports/{export}/file", export=export), nothing, headers=headers)


# Jobs


def list_jobs(
    *, state: jobs.JobState | None = None, kind: jobs.JobKind | None = None
) -> Request[Page[jobs.JobAnswer]]:
    """The jobs, the newest first."""
    return Request("GET", "/jobs", reading(Page[jobs.JobAnswer])).asking(state=state, kind=kind)


def get_job(job: str) -> Request[jobs.JobAnswer]:
    """A job."""
    return Request("GET", at("/jobs/{job}", job=job), reading(jobs.JobAnswer))


def cancel_job(job: str) -> Request[jobs.JobAnswer]:
    """Ask for the end of a job; it takes effect within a shard."""
    return Request("POST", at("/jobs/{job}/cancel", job=job), reading(jobs.JobAnswer))


def watch_job(job: str, *, after: str | None = None) -> Request[None]:
    """The changes of a job as server-sent events, those after the event with the id `after`."""
    headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity", "Cache-Control": "no-store"}
    if after is not None:
        headers["Last-Event-ID"] = after
    return Request("GET", at("/jobs/{job}/events", job=job), nothing, headers=headers)


# Schedules


def create_schedule(
    dataset: str, cron: str, run: runs.RunRequest | RunOptions, **options: Unpack[ScheduleOptions]
) -> Request[schedules.NewScheduleAnswer]:
    """Make a schedule. Keep the `webhook_secret` of the answer: it is shown this once."""
    content = body(schedules.NewSchedule, dataset=dataset, cron=cron, run=run, **options)
    return Request("POST", "/schedules", reading(schedules.NewScheduleAnswer), content=content)


def list_schedules() -> Request[Page[schedules.ScheduleAnswer]]:
    """The schedules, the newest first."""
    return Request("GET", "/schedules", reading(Page[schedules.ScheduleAnswer]))


def get_schedule(schedule: str) -> Request[schedules.ScheduleAnswer]:
    """A schedule by its name or id."""
    return Request("GET", _schedule(schedule), reading(schedules.ScheduleAnswer))


def change_schedule(schedule: str, **changes: Unpack[ScheduleChanges]) -> Request[schedules.ScheduleAnswer]:
    """Change a schedule; what is left out stays. `paused=True` stops it, `paused=False` lets it go on."""
    content = body(schedules.ChangedSchedule, **changes)
    return Request("PATCH", _schedule(schedule), reading(schedules.ScheduleAnswer), content=content)


def delete_schedule(schedule: str) -> Request[datasets.Deleted]:
    """Delete a schedule; what it made stays."""
    return _delete(_schedule(schedule))


def fire_schedule(schedule: str) -> Request[jobs.JobAnswer]:
    """Run a schedule now, whatever its cron says."""
    return Request("POST", f"{_schedule(schedule)}/fire", reading(jobs.JobAnswer))


def list_fires(schedule: str) -> Request[Page[schedules.FireAnswer]]:
    """When a schedule fired and what came of it, the newest first."""
    return Request("GET", f"{_schedule(schedule)}/fires", reading(Page[schedules.FireAnswer]))


def list_deliveries(schedule: str) -> Request[Page[schedules.DeliveryAnswer]]:
    """The attempts to deliver the webhooks of a schedule, the newest first."""
    return Request("GET", f"{_schedule(schedule)}/deliveries", reading(Page[schedules.DeliveryAnswer]))


# SQL


def run_sql(
    query: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None, *, max_rows: int | None = None
) -> Request[None]:
    """One SELECT, answered as an Arrow stream."""
    content = body(
        sql.SqlRequest, sql=query, format="arrow", **given(parameters=parameters, max_rows=max_rows)
    )
    return Request("POST", "/sql", nothing, content=content)


def describe_sql(schema: str | None = None) -> Request[sql.SqlSchema]:
    """The tables that can be asked, with their columns: of the first datasets, or of one schema."""
    return Request("GET", "/sql/schema", reading(sql.SqlSchema)).asking(schema=schema)


def list_saved_queries() -> Request[Page[sql.SavedQueryAnswer]]:
    """The saved queries, the newest first."""
    return Request("GET", "/sql/saved", reading(Page[sql.SavedQueryAnswer]))


def save_query(query: str, statement: str) -> Request[sql.SavedQueryAnswer]:
    """Keep an SQL statement under the name `query`, in place of what had it before."""
    content = body(sql.NewSavedQuery, sql=statement)
    return Request("PUT", _saved_query(query), reading(sql.SavedQueryAnswer), content=content)


def delete_saved_query(query: str) -> Request[datasets.Deleted]:
    """Delete a saved query by its name."""
    return _delete(_saved_query(query))


# Tokens and projects


def create_token(name: str, **options: Unpack[TokenOptions]) -> Request[projects.NewTokenAnswer]:
    """Make a token. `secret` of the answer is shown this once."""
    content = body(projects.NewToken, name=name, **options)
    return Request("POST", "/tokens", reading(projects.NewTokenAnswer), content=content)


def list_tokens() -> Request[Page[projects.TokenAnswer]]:
    """The tokens of all projects, the newest first."""
    return Request("GET", "/tokens", reading(Page[projects.TokenAnswer]))


def revoke_token(token: str) -> Request[projects.TokenAnswer]:
    """End a token, by its id."""
    return Request("DELETE", at("/tokens/{token}", token=token), reading(projects.TokenAnswer))


def create_project(name: str, **quotas: Unpack[Quotas]) -> Request[projects.ProjectAnswer]:
    """Make a project."""
    content = body(projects.NewProject, name=name, **quotas)
    return Request("POST", "/projects", reading(projects.ProjectAnswer), content=content)


def list_projects() -> Request[Page[projects.ProjectAnswer]]:
    """The projects with what each has and does, the newest first."""
    return Request("GET", "/projects", reading(Page[projects.ProjectAnswer]))


def get_project(project: str) -> Request[projects.ProjectAnswer]:
    """A project by its name or id."""
    return Request("GET", at("/projects/{project}", project=project), reading(projects.ProjectAnswer))


def change_project(project: str, **quotas: Unpack[Quotas]) -> Request[projects.ProjectAnswer]:
    """Change quotas; those left out stay, None lifts one."""
    content = body(projects.Quotas, **quotas)
    path = at("/projects/{project}", project=project)
    return Request("PATCH", path, reading(projects.ProjectAnswer), content=content)


# Methods and health


def list_methods() -> Request[Page[methods.MethodAnswer]]:
    """The pruning methods that the service knows."""
    return Request("GET", "/methods", reading(Page[methods.MethodAnswer]))


def get_method(method: str) -> Request[methods.MethodAnswer]:
    """A method with its options and presets."""
    return Request("GET", at("/methods/{method}", method=method), reading(methods.MethodAnswer))


def get_health() -> Request[dict[str, Any]]:
    """That the service answers."""
    return Request("GET", "/health", reading(dict[str, Any]))


def get_readiness() -> Request[dict[str, Any]]:
    """That the service can do its work. Raises ServiceError or StorageError when it cannot."""
    return Request("GET", "/ready", reading(dict[str, Any]))


def get_metrics() -> Request[str]:
    """Figures for Prometheus, in its text format."""
    return Request("GET", "/metrics", text)


# What they share


def given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _one_of(data: Data | None, source: AnySource | None) -> None:
    if (data is None) == (source is None):
        raise UsageError(
            "give either data, a file or rows, or a source that the service reads", field="source"
        )


def _carrying(path: str, data: Data | None, fields: dict[str, Any]) -> Request[jobs.JobAnswer]:
    """A request with a file, as multipart, or with rows, as JSON."""
    read = reading(jobs.JobAnswer)
    if isinstance(data, str | Path):
        form = {name: _form_value(value) for name, value in fields.items() if value is not None}
        return Request("POST", path, read, form=form, upload=Path(data))
    rows = {} if data is None else {"rows": [dict(row) for row in data]}
    return Request("POST", path, read, content=encoded(rows | fields))


def _form_value(value: Any) -> str:
    """A field of a form; what is no plain value is JSON in it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _delete(path: str, **flags: bool) -> Request[datasets.Deleted]:
    query = {name: "true" for name, wanted in flags.items() if wanted}
    return Request("DELETE", path, reading(datasets.Deleted), query=query)


def _version(dataset: str, number: int) -> str:
    return at("/datasets/{dataset}/versions/{number}", dataset=dataset, number=number)


def _evaluations(run: str) -> str:
    return at("/runs/{run}/evaluations", run=run)


def _saved_query(query: str) -> str:
    return at("/sql/saved/{query}", query=query)


def _schedule(schedule: str) -> str:
    return at("/schedules/{schedule}", schedule=schedule)
