"""Methods, their options and their columns."""

from __future__ import annotations

from typing import Any

from datapruner.schemas.common import Answer
from scorers.column import Direction, Kind, Of


class ColumnAnswer(Answer):
    """A column or threshold of a method.

    `of`: what it has one value for: a sample, whatever is kept; a sample of a selection; a response token;
    or, as a threshold in the report, the selection as a whole. `direction`: the end of it that is kept by
    default, if either is. `always`: whether every run has the column, null where another method ran.
    """

    name: str
    meaning: str
    of: Of
    kind: Kind
    unit: str
    direction: Direction | None
    at_least: float | None
    at_most: float | None
    values: list[str]
    always: bool


class MethodAnswer(Answer):
    """`options` is a JSON Schema; `presets` are published settings."""

    name: str
    title: str
    paper: str
    prunes_tokens: bool
    options: dict[str, Any]
    presets: dict[str, dict[str, Any]]
    columns: list[ColumnAnswer]
