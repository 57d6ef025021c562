"""The error-uncertainty plane of a run as densities: how many samples lie where, and how many were kept."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from datapruner.reporting.distributions import edges_of, of_column
from datapruner.reporting.tables import Tables
from datapruner.rows.sql_text import identifier
from datapruner.schemas.reports import Distribution, Plane, Quadrant

X, Y = "entropy", "ppl"
CELLS = 48
"""Most bins along one side."""
_MEANINGS = {
    "Q1": "harmful noise: high perplexity, high entropy",
    "Q2": "valuable misconception: high perplexity, low entropy",
    "Q3": "redundant knowledge: low perplexity, low entropy",
    "Q4": "calibration data: low perplexity, high entropy",
    "band": "between the thresholds",
}
_FILL = "; those kept are fill, to reach the target"


def plane(tables: Tables, known: Mapping[str, Distribution], thresholds: Mapping[str, float]) -> Plane | None:
    """The plane, in bins of the scales that these distributions have; None where either axis has none."""
    if X not in known or Y not in known:
        return None
    edges = {name: _edges(known[name]) for name in (X, Y)}
    shape = len(edges[Y]) - 1, len(edges[X]) - 1
    everyone, kept = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    x, y = identifier(X), identifier(Y)
    query = (
        f"SELECT {x}::DOUBLE AS x, {y}::DOUBLE AS y, is_kept "  # noqa: S608
        f"FROM samples WHERE isfinite({x}) AND isfinite({y})"
    )
    for batch in tables.batches(query):
        at = [_bins(batch.column(name).to_numpy(), edges[axis]) for name, axis in (("y", Y), ("x", X))]
        placed = (at[0] >= 0) & (at[1] >= 0)
        for counts in (everyone, kept):
            np.add.at(counts, tuple(each[placed] for each in at), 1)
            placed &= batch.column("is_kept").to_numpy(zero_copy_only=False)
    return Plane(
        x=X,
        y=Y,
        x_scale=known[X].scale,
        y_scale=known[Y].scale,
        x_edges=edges[X],
        y_edges=edges[Y],
        samples=everyone.tolist(),
        kept=kept.tolist() if tables.selected else None,
        thresholds=of_column(X, thresholds) | of_column(Y, thresholds),
        quadrants=_quadrants(tables),
    )


def _edges(of: Distribution) -> list[float]:
    least = of.edges[0] if of.scale == "log" else None
    return edges_of(of.summary_before, least, of.scale, bins=CELLS)


def _bins(values: NDArray[np.float64], edges: list[float]) -> NDArray[np.int64]:
    """The bin of each value, (N,): above its lower edge and at most its upper one; -1 where it has none."""
    found = np.searchsorted(edges, values, side="left") - 1
    found[values == edges[0]] = 0
    return np.where(found < len(edges) - 1, found, -1)


def _quadrants(tables: Tables) -> list[Quadrant] | None:
    if "quadrant" not in tables.names:
        return None
    found = tables.rows(
        "SELECT quadrant, count(*), count(*) FILTER (is_kept) FROM samples "
        "WHERE quadrant IS NOT NULL GROUP BY quadrant ORDER BY quadrant"
    )
    return [
        Quadrant(
            name=name,
            meaning=_MEANINGS.get(name, "") + (_FILL if kept and name not in ("Q2", "Q4") else ""),
            samples=samples,
            kept=kept if tables.selected else None,
        )
        for name, samples, kept in found
    ] or None
