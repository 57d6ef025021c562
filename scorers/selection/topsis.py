"""TOPSIS: one closeness score out of several criteria (Hwang and Yoon, 1981). Knows nothing of pruning.

Notable choice: column norms are summed exactly (`math.fsum`), so that closeness does not depend on the order
of the rows, last bit included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

import numpy as np

from scorers.column import Direction
from scorers.signals.columns import Floats

_SUMMED = 1 << 16  # numbers of Python's at once


def topsis(columns: Floats, weights: Sequence[float], directions: Sequence[Direction]) -> Floats:
    """Closeness (N,) in [0, 1] of each row to the ideal, 1 best; 0.5 where all rows are alike.

    columns: (N, k), one criterion per column. weights: k positive numbers, of which only the ratios matter.
    directions: for each column whether "high" or "low" is good. Each column is divided by its Euclidean
    norm (an all-zero column stays 0) and weighted; closeness is d- / (d+ + d-), of the distances to the best
    and to the worst values. Multiplying a column by a positive number changes nothing.

    Raises ValueError on shapes that do not fit, values that are not finite, weights that are not positive
    and unknown directions.
    """
    values = np.asarray(columns, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"columns have shape {values.shape}, not (samples, criteria)")
    n, k = values.shape
    if len(weights) != k or len(directions) != k:
        raise ValueError(f"{k} criteria, but {len(weights)} weights and {len(directions)} directions")
    for j, (weight, direction) in enumerate(zip(weights, directions, strict=True)):
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"weight {j} is {weight!r}: allowed is a number over 0")
        if direction not in ("high", "low"):
            raise ValueError(f"direction {j} is {direction!r}: allowed is 'high' or 'low'")
    finite = np.isfinite(values)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise ValueError(f"row {row}, criterion {column} is {values[row, column]}, not a finite number")
    if n == 0:
        return np.empty(0)

    largest_weight = max(weights)
    to_best, to_worst = np.zeros(n), np.zeros(n)
    for j in range(k):
        weighted = weights[j] / largest_weight * _unit(values[:, j])
        low, high = weighted.min(), weighted.max()
        best, worst = (high, low) if directions[j] == "high" else (low, high)
        to_best += (weighted - best) ** 2
        to_worst += (weighted - worst) ** 2
    to_best, to_worst = np.sqrt(to_best), np.sqrt(to_worst)
    closeness = np.full(n, 0.5)
    total = to_best + to_worst
    np.divide(to_worst, total, out=closeness, where=total > 0)
    return closeness


def _unit(column: Floats) -> Floats:
    """`column` divided by its Euclidean norm; all zeros stay zeros."""
    largest = np.abs(column).max()
    if largest == 0:
        return np.zeros_like(column)
    scaled: Floats = column / largest  # so that no square overflows, nor all of them underflow
    parts = (scaled[start : start + _SUMMED] for start in range(0, len(scaled), _SUMMED))
    return scaled / math.sqrt(math.fsum(chain.from_iterable((part * part).tolist() for part in parts)))
