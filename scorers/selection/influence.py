"""What removing a sample would do to a risk, to first order, from projected gradients (arXiv 2401.17197).

With phi the projected gradient of each sample and v that of the risk, the influence of removing sample s is
`I(s) = phi_s . (Phi^T Phi / n + d 1)^-1 v`: high means that the risk would rise, so that s is worth keeping.
The factor 1/n of the change itself, the same for all, is left out.

Notable choices:
- the matrix is the mean outer product of the gradients, which stands in for the Hessian (they agree where a
  model fits its data), so it is positive and is solved exactly in fp64: no step count, no divergence;
- damping is relative to the mean of the diagonal, and so means the same for every model and projection;
- where samples are fewer than dimensions and the risk is their own, the solve comes near giving every one of
  them influence 1, and the ranking near noise: more damping, or a target set, is then the remedy;
- samples are summed in the order of their ids, in chunks: memory is that of a chunk. The same samples give
  the same numbers whatever order they come in.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from scorers.method import view
from scorers.signals.columns import Floats, Ints, Signals, Vectors

PROJECTION = "head_grad_projection"
_CHUNK = 8192  # samples turned into fp64 at once


def mean_gradient(signals: Signals) -> Floats:
    """The projected gradient of the mean risk of these samples, (k,) fp64, zeros when there are none.

    Raises ValueError as `gradients` does.
    """
    n, k = _measured(signals).shape
    total = np.zeros(k)
    for _, block in gradients(signals):
        total += block.sum(axis=0)
    return total / max(n, 1)


def target_gradient(signals: Signals) -> Floats:
    """The projected gradient of the mean risk of the target set, (k,) fp64.

    Raises ValueError when no target set was measured or it is empty.
    """
    return mean_gradient(target_set(signals))


def target_set(signals: Signals) -> Signals:
    """The samples to select towards. Raises ValueError when none were measured."""
    target = view(signals, "target")
    if len(target) == 0:
        raise ValueError("no sample of the target set could be measured; name one that has responses")
    return target


def influence(signals: Signals, v: Floats, damping: float) -> Floats:
    """Influence (N,) of removing each sample on the risk whose projected gradient is v (k,).

    damping: over 0, in units of the mean diagonal of Phi^T Phi / n. All zeros when no sample has a gradient.
    Raises ValueError as `gradients` does.
    """
    n, k = _measured(signals).shape
    if n == 0:
        return np.empty(0)
    moment = np.zeros((k, k))
    for _, block in gradients(signals):
        moment += block.T @ block
    moment /= n
    scale = float(np.trace(moment)) / k
    if scale == 0:
        return np.zeros(n)
    moment[np.diag_indices(k)] += damping * scale
    u = np.linalg.solve(moment, v)
    values = np.empty(n)
    for rows, block in gradients(signals):
        values[rows] = block @ u
    return values


def gradients(signals: Signals) -> Iterator[tuple[Ints, Floats]]:
    """The samples in the order of their ids, some at a time, with their projected gradients: (n,), (n, k).

    Raises ValueError when they were not measured, naming the sample when they are not finite.
    """
    phi, order = _measured(signals), np.argsort(signals.ids, kind="stable")
    signals.let_go()
    for start in range(0, len(order), _CHUNK):
        rows = order[start : start + _CHUNK]
        block = phi[rows].astype(np.float64)
        bad = ~np.isfinite(block).all(axis=1)
        if bad.any():
            raise ValueError(
                f"vector signal {PROJECTION} of sample {signals.ids[rows[np.argmax(bad)]]} is not "
                "finite; leave out samples that could not be measured before scoring"
            )
        yield rows, block


def _measured(signals: Signals) -> Vectors:
    if PROJECTION not in signals.vectors:
        measured = ", ".join(sorted(signals.vectors)) or "none"
        raise ValueError(f"vector signal {PROJECTION} was not measured; measured are {measured}")
    return signals.vectors[PROJECTION]
