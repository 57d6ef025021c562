"""SQL over the caller's corpora, scores, masks and runs."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from datapruner.rows.formats import ANSWERS, FORMATS, AnswerFormat
from datapruner.schemas.common import Answer, Moment, Request
from datapruner.validation import of_kind

MEDIA_TYPES: dict[AnswerFormat, str] = {name: FORMATS[name].media_type for name in ANSWERS}
"""What an answer is, by the name of its format."""


Sql = Annotated[str, Field(min_length=1, max_length=100_000)]


class SqlRequest(Request):
    """One SELECT. `parameters` fill `?` and `$1` (a list) or `$name` (an object)."""

    sql: Sql
    parameters: Annotated[list[Any] | dict[str, Any], of_kind(list, tuple, dict)] | None = None
    max_rows: int | None = Field(None, ge=1, description="at most; the service's own limit stays")
    format: AnswerFormat | None = Field(None, description="default: by Accept")


class SqlColumn(Answer):
    name: str
    type: str


class SqlAnswer(Answer):
    columns: list[SqlColumn]
    rows: list[list[Any]]
    truncated: bool
    seconds: float


class DocumentedColumn(Answer):
    name: str
    type: str
    description: str


class SqlTable(Answer):
    schema_name: str
    table: str
    columns: list[DocumentedColumn]


class SqlSchema(Answer):
    tables: list[SqlTable]


class NewSavedQuery(Request):
    sql: Sql


class SavedQueryAnswer(Answer):
    id: str
    name: str
    sql: str
    changed_at: Moment
