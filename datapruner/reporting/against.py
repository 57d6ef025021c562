"""A score of one run against a score of another: how many of the samples that both know lie where."""

from __future__ import annotations

from typing import NamedTuple

import duckdb
import numpy as np

from datapruner.errors import UsageError
from datapruner.reporting.distributions import scale_of
from datapruner.rows.sql_text import identifier
from datapruner.runs.comparison import Compared, paired, score_names
from datapruner.schemas.against import Against, AgainstAxis
from datapruner.schemas.reports import Scale

CELLS = 64
"""Along one side."""
_VALUES = """
CREATE TEMP TABLE chosen AS
SELECT a.{x}::DOUBLE AS x, b.{y}::DOUBLE AS y FROM pairs
JOIN {first}.sample_scores a ON a.row = first_row
JOIN {second}.sample_scores b ON b.row = second_row
WHERE isfinite(a.{x}::DOUBLE) AND isfinite(b.{y}::DOUBLE)
"""
_ENDS = "SELECT min({0}), median({0}), max({0}), min({0}) FILTER ({0} > 0) FROM chosen"


class _Side(NamedTuple):
    """Where an axis begins and ends, in the units that are drawn; `place`: SQL for where a value lies."""

    scale: Scale
    low: float
    high: float
    place: str


def against(first: Compared, second: Compared, x: str, y: str) -> Against:
    """Score `x` of the first run against `y` of the second. Raises UsageError where there is none."""
    with paired(first, second) as (connection, names):
        for name, column, run, field in ((names[0], x, first, "x"), (names[1], y, second, "y")):
            known = score_names(connection, name)
            if column not in known:
                raise UsageError(
                    f"run {run.run} has no score {column!r}",
                    remedy=f"there are {', '.join(known)}",
                    field=field,
                )
        values = {"x": identifier(x), "y": identifier(y), "first": names[0], "second": names[1]}
        connection.execute(_VALUES.format(**values))
        sides = _side(connection, "x"), _side(connection, "y")
        if sides[0] is None or sides[1] is None:
            raise UsageError("no sample has both scores", remedy="choose others", field="x")
        at = [
            f"least({CELLS - 1}, floor(({side.place} - {side.low!r}::DOUBLE) "
            f"/ {(side.high - side.low) / CELLS!r}::DOUBLE))::INTEGER"
            for side in sides
            if side is not None
        ]
        there = " AND ".join(f"{side.place} IS NOT NULL" for side in sides if side is not None)
        found = connection.execute(
            f"SELECT {at[0]} AS i, {at[1]} AS j, count(*) FROM chosen WHERE {there} GROUP BY i, j"  # noqa: S608
        ).fetchall()
    samples = np.zeros((CELLS, CELLS), np.int64)
    for i, j, count in found:
        samples[j, i] = count
    axes = [_axis(name, side) for name, side in zip((x, y), sides, strict=True) if side is not None]
    return Against(x=axes[0], y=axes[1], samples=samples.tolist())


def _side(connection: duckdb.DuckDBPyConnection, name: str) -> _Side | None:
    low, median, high, above_zero = connection.execute(_ENDS.format(name)).fetchall()[0]
    if low is None:
        return None
    if scale_of(low, median, high) == "log":
        ends = float(np.log10(above_zero)), float(np.log10(high))
        return _Side("log", ends[0], max(ends[1], ends[0] + 1e-9), f"log10(nullif({name}, 0))")
    return _Side("linear", low, high if high > low else low + 1, name)


def _axis(column: str, side: _Side) -> AgainstAxis:
    edges = np.linspace(side.low, side.high, CELLS + 1)
    return AgainstAxis(
        column=column,
        scale=side.scale,
        edges=(10**edges if side.scale == "log" else edges).tolist(),
    )
