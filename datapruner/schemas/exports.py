"""Exports: subsets as files."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from datapruner.rows.formats import EXPORTS, AnyExportFormat, ExportFormat, TooLong, exported
from datapruner.schemas.common import Answer, Moment, Request
from datapruner.schemas.jobs import JobState

SubsetFormat = Literal["parquet", "plain-jsonl"]
"""Of what `prune` answers with at once, which the media type tells apart; an export can be more."""
MEDIA_TYPES: dict[ExportFormat, str] = {name: exported(name).media_type for name in EXPORTS}
"""What the file of an export is, by the name of its format."""


TAR = "application/x-tar"
LICENSE = r"^[a-z0-9][a-z0-9.+-]{0,63}$"
"""Of identifiers of licences, as the Hub has them."""
FILE_NAME = r"^\.{0,2}[^\x00-\x1f\x7f/\\.][^\x00-\x1f\x7f/\\]{0,251}$"
"""Of names of files without a folder."""


class NewExport(Request):
    """parquet, csv, jsonl: everything, masks included. plain-…: the kept rows alone, as they came, without
    masks of tokens. The others: as the trainer of that name takes them; of one that takes a folder, the file
    is a tar archive of it."""

    run: str
    format: AnyExportFormat = "parquet"
    max_length: int | None = Field(
        None, ge=2, le=2**31 - 1, description="tokens that a row for a trainer may have; null: any number"
    )
    too_long: TooLong = Field("cut", description="what becomes of longer rows: their end goes, or all")

    @model_validator(mode="after")
    def _only_trainers_have_a_limit(self) -> NewExport:
        if self.format in EXPORTS and (self.max_length is not None or self.too_long != "cut"):
            raise ValueError("a limit of length is of rows for trainers: name one as the format")
        return self


class TrainerCounts(Answer):
    """What became of the rows of a subset for a trainer: rows = written + too_long + untrained.

    `cut`: rows written that lost their ends. `untrained`: without a token to train on. Tokens are of what was
    written; `lost_tokens` would be trained on without the limit. `longest`: tokens of the longest row.
    `weighted`: whether the loss of each token has a factor of its own.
    """

    rows: int
    written: int
    cut: int
    too_long: int
    untrained: int
    tokens: int
    trained_tokens: int
    lost_tokens: int
    longest: int
    weighted: bool


class ExportAnswer(Answer):
    """`sha256` of the file is also its ETag. Null until published; `max_length`, `too_long` and `counts` are
    of rows for trainers alone."""

    id: str
    run_id: str
    job_id: str
    state: JobState
    format: AnyExportFormat
    max_length: int | None
    too_long: TooLong | None
    rows: int | None
    counts: TrainerCounts | None
    bytes: int | None
    sha256: str | None
    created_at: Moment
    published_at: Moment | None
    download: str | None
    card: str | None = Field(description="its dataset card, as a tar archive made when it is asked for")
