"""Exports: subsets as files."""

from __future__ import annotations

from typing import Literal

from datapruner.rows.formats import EXPORTS, ExportFormat, exported
from datapruner.schemas.common import Answer, Moment, Request
from datapruner.schemas.jobs import JobState

SubsetFormat = Literal["parquet", "plain-jsonl"]
"""Of what `prune` answers with at once, which the media type tells apart; an export can be more."""
MEDIA_TYPES: dict[ExportFormat, str] = {name: exported(name).media_type for name in EXPORTS}
"""What the file of an export is, by the name of its format."""


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
