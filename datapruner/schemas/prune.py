"""The one-call door: rows in, subset out."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from datapruner.schemas.common import Name
from datapruner.schemas.runs import RunRequest


class NewPrune(RunRequest):
    """Rows to prune, and how. With a file instead of rows, the same fields are those of a form."""

    rows: list[dict[str, Any]] = Field(min_length=1)
    name: Name | None = Field(None, description="of the dataset that is made; without, no listing shows it")
    mapping: dict[str, str] = Field({}, description="columns by role, when they are not recognised")
