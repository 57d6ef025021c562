"""Exports: subsets as files."""

from __future__ import annotations

from typing import Literal, get_args

from datapruner.schemas.common import Answer, Moment, Request
from datapruner.schemas.jobs import JobState

ExportFormat = Literal["parquet", "csv", "jsonl", "plain-parquet", "plain-csv", "plain-jsonl"]
_MEDIA_TYPES = {
    "parquet": "application/vnd.apache.parquet",
    "csv": "text/csv",
    "jsonl": "application/x-ndjson",
}
SUFFIXES: dict[str, str] = {name: "." + name.removeprefix("plain-") for name in get_args(ExportFormat)}
MEDIA_TYPES: dict[str, str] = {name: _MEDIA_TYPES[suffix[1:]] for name, suffix in SUFFIXES.items()}


class NewExport(Request):
    """parquet, csv, jsonl: everything, masks included. plain-…: the kept rows alone, as they came."""

    run: str
    format: ExportFormat = "parquet"


class ExportAnswer(Answer):
    """`sha256` of the file is also its ETag. Null until published."""

    id: str
    run_id: str
    job_id: str
    state: JobState
    format: ExportFormat
    rows: int | None
    bytes: int | None
    sha256: str | None
    created_at: Moment
    published_at: Moment | None
    download: str | None
