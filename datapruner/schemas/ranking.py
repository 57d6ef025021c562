"""Rows of a run by a score: the lowest or highest first."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from datapruner.schemas.common import Answer

Status = Literal["kept", "pruned", "scored", "rejected", "error"]
MOST = 50


class Ranking(Answer):
    """What is asked. `by`: a column of numbers, by default the first that the methods rank by; rows without a
    value in it are left out. `reason`: part of a row's reason."""

    by: str | None = Field(None, max_length=200)
    highest: bool = False
    status: Status | None = None
    reason: str | None = Field(None, max_length=500)
    limit: int = Field(10, ge=1, le=MOST)
    offset: int = Field(0, ge=0, le=2**40)


class RankedRow(Answer):
    """`prompt` and `response`: how they begin; null where the corpus is gone, or the row was rejected."""

    row: int
    sample_id: str | None
    status: Status
    reason: str | None
    scores: dict[str, Any]
    prompt: str | None
    response: str | None


class RankedRows(Answer):
    """`rows` of `total` that there are, ordered by the column `by`, which means `meaning`."""

    by: str
    meaning: str
    total: int
    rows: list[RankedRow]
