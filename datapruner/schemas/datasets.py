"""Datasets, their versions and where rows come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from datapruner.schemas.common import Answer, Dependent, Moment, Name, Request
from datapruner.validation import matching

MADE_UP = "^(prune|set)_[0-9a-f]{22}$"
"""Names of datasets that nobody named, of rows that were sent to be pruned or compared with. Listings leave
them out unless they are asked for."""


def content_name(digest: str) -> str:
    """The name of a dataset of rows to compare with, by the hex SHA-256 of its file."""
    return f"set_{digest[:22]}"


class UploadSource(Request):
    """A file that was uploaded with the request, or rows that stood in it."""

    kind: Literal["upload"] = "upload"
    upload_id: str


class HubSource(Request):
    """A dataset on the Hugging Face Hub."""

    kind: Literal["hub"]
    name: Annotated[str, *matching(r"\w[\w.-]*/\w[\w.-]*", "a name on the Hub, such as owner/dataset")]
    config: str | None = None
    split: str | None = None


class PathSource(Request):
    """A file, folder or glob below one of the service's import roots."""

    kind: Literal["path"]
    path: str = Field(min_length=1, max_length=4096, description="absolute, or relative to an import root")


class UrlSource(Request):
    """An object or prefix of an object store that the service may read."""

    kind: Literal["url"]
    url: str = Field(min_length=1, max_length=4096)


Source = Annotated[UploadSource | HubSource | PathSource | UrlSource, Field(discriminator="kind")]
RereadSource = Annotated[HubSource | PathSource | UrlSource, Field(discriminator="kind")]
"""A source that can be read again every night."""


class Retention(Request):
    """How many versions and runs to keep; null: all. What something refers to is never deleted."""

    keep_versions: int | None = Field(None, ge=1, le=1_000_000)
    keep_runs: int | None = Field(None, ge=1, le=1_000_000)


class NewDataset(Retention):
    """A dataset from inline rows or from a source that the service reads itself."""

    name: Name
    rows: list[dict[str, Any]] | None = Field(None, min_length=1)
    source: RereadSource | None = None
    mapping: dict[str, str] = Field({}, description="columns by role, when they are not recognised")


class NewVersion(Request):
    """More rows for a dataset: inline, or from a source; neither: the dataset's own source is read again."""

    rows: list[dict[str, Any]] | None = Field(None, min_length=1)
    source: RereadSource | None = None
    only_new: bool = Field(False, description="leave out rows that the dataset already has")


class VersionAnswer(Answer):
    """A published version: rows == accepted + rejected, duplicates are among the accepted.

    `report` has `shapes`, `columns`, `rejects` (rows by reason code), `sources` and `truncated_sources`:
    those that broke off, with where and why, of which only the rows before are here.
    """

    id: str
    number: int
    corpus_hash: str
    rows: int
    accepted: int
    rejected: int
    duplicates: int
    new_rows: int
    bytes: int
    report: dict[str, Any] = Field(repr=False)
    created_at: Moment


class DatasetAnswer(Answer):
    id: str
    name: str
    source: dict[str, Any] | None
    mapping: dict[str, str] | None
    keep_versions: int | None
    keep_runs: int | None
    created_at: Moment
    latest: VersionAnswer | None


class Reject(Answer):
    """A row that is no sample, and why."""

    row: int
    source: str
    line: int
    field: str | None
    code: str
    reason: str
    remedy: str
    excerpt: str | None


class PreviewTurn(Answer):
    role: str
    content: str


class PreviewSample(Answer):
    row: int
    sample_id: str
    shape: str
    turns: list[PreviewTurn]


class Deleted(Answer):
    """What was deleted, or would be."""

    deleted: bool
    dependents: list[Dependent]

    @classmethod
    def of(cls, counts: Mapping[str, int], *, done: bool) -> Deleted:
        """With what depends on it, by kind."""
        return cls(deleted=done, dependents=[Dependent(kind=kind, count=n) for kind, n in counts.items()])
