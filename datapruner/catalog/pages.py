"""A page of a listing, the newest first."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute

Rows = TypeVar("Rows", bound=Select[*tuple[Any, ...]])
KeyT = TypeVar("KeyT", str, int)


def newest(query: Rows, key: InstrumentedAttribute[KeyT], limit: int, before: KeyT | None) -> Rows:
    """Of `query` the `limit` rows with the highest `key`, of those below `before` if it is given."""
    if before is not None:
        query = query.where(key < before)
    return query.order_by(key.desc()).limit(limit)
