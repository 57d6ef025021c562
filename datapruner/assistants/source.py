"""What assistants can look at: the runs of a home folder, or those of a project of a service."""

from __future__ import annotations

from typing import Any, Protocol

from pydantic import Field

from datapruner.schemas.common import Answer, Moment
from datapruner.schemas.ranking import RankedRows, Ranking


class DatasetLine(Answer):
    """A dataset by the name that other tools take. `rows` as read, of which `accepted` are samples."""

    name: str
    source: str | None
    rows: int | None
    accepted: int | None
    rejected: int | None
    duplicates: int | None
    version: int | None = None


class Dataset(DatasetLine):
    """With how its rows were understood: rows by shape, columns by shape, rejected rows by reason."""

    shapes: dict[str, int]
    columns: dict[str, list[str]]
    rejects: dict[str, int]


class RunLine(Answer):
    """A run; `kept` of the `ingested` rows. `verdict`: of its last evaluation."""

    run: str
    title: str
    dataset: str | None
    state: str
    published_at: Moment | None
    ingested: int | None
    kept: int | None
    verdict: str | None


class RunDetail(RunLine):
    """With what was asked and what came of it: ingested = kept + pruned + rejected + errored (scored counts
    as kept). `scores`: columns that its methods rank by."""

    config: dict[str, Any]
    lineage: dict[str, Any]
    report: dict[str, Any]
    scores: list[str]
    measured: int | None = Field(description="samples that went through the proxy model for it")


class SqlRows(Answer):
    columns: list[dict[str, str]]
    rows: list[list[Any]]
    truncated: bool


class Source(Protocol):
    """Everything raises DataprunerError: NotFoundError, UsageError and others, in words for people."""

    sql_tables: str
    """What SQL can read, in words."""

    def datasets(self, limit: int, after: str | None) -> list[DatasetLine]:
        """The newest, those after the one named `after` if it is given."""
        ...

    def dataset(self, name: str) -> Dataset: ...

    def runs(self, dataset: str | None, limit: int, after: str | None) -> list[RunLine]:
        """The newest, those after the run `after` if it is given."""
        ...

    def run(self, run: str) -> RunDetail: ...

    def ranked(self, run: str, asked: Ranking) -> RankedRows: ...

    def explain(self, run: str, sample: str) -> dict[str, Any]:
        """All that is known of a sample, as in `schemas.runs.SampleAnswer`."""
        ...

    def sql(self, query: str, run: str | None, rows: int) -> SqlRows: ...
