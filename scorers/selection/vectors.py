"""Sample vectors as methods compare them: one unit row for each sample, in the order of the sample ids.

Notable choice: floating-point sums depend on what stands beside what in a matrix, so rows are ordered by id
before any of them are multiplied; the samples then decide the result, and their order in the corpus does not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scorers.signals.columns import Ints, Signals

Vectors = NDArray[np.float32]

_ROWS_AT_ONCE = 8192


def unit_vectors(signals: Signals, name: str) -> tuple[Ints, Vectors]:
    """(order, rows): `signals.ids[order]` ascends; rows[i] of (N, D) is the unit vector of sample order[i].

    Raises ValueError, naming the sample, when the signal is missing, or a vector is not finite or is zero.
    """
    if name not in signals.vectors:
        measured = ", ".join(sorted(signals.vectors)) or "none"
        raise ValueError(f"vector signal {name} was not measured; measured are {measured}")
    vectors = signals.vectors[name]
    order = np.argsort(signals.ids, kind="stable")
    rows = np.empty(vectors.shape, dtype=np.float32)
    for start in range(0, len(order), _ROWS_AT_ONCE):
        at = order[start : start + _ROWS_AT_ONCE]
        exact = vectors[at].astype(np.float64)
        norms = np.linalg.norm(exact, axis=1)
        if not (usable := np.isfinite(norms) & (norms > 0)).all():
            raise ValueError(
                f"vector signal {name} of sample {signals.ids[at[np.argmin(usable)]]} is zero or not finite; "
                "leave out samples that could not be measured before scoring"
            )
        rows[start : start + len(at)] = exact / norms[:, None]
    return order, rows
