"""How the rows of a run are spread over one of their columns, before and after."""

from __future__ import annotations

from pydantic import Field

from datapruner.schemas.common import Answer, Request
from datapruner.schemas.reports import Category, Distribution


class SpreadAsked(Request):
    """A column, by name; a key inside of another by both names with a dot between them."""

    column: str = Field(min_length=1, max_length=500)


class Spread(Answer):
    """`numbers` or `names`; `missing` rows have no value, of which `missing_kept` were kept."""

    column: str
    text: str
    numbers: Distribution | None
    names: Category | None
    missing: int
    missing_kept: int | None


class SpreadColumns(Answer):
    """Columns to choose from, with what they mean."""

    columns: dict[str, str]
