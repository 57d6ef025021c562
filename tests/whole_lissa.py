"""LiSSA from its first step to the influence of every sample, in one go."""

from __future__ import annotations

import numpy as np
from torch import Tensor, stack

from scorers.signals.lissa import Surrogate, influence, step


def mean_gradient(surrogate: Surrogate) -> Tensor:
    """Gradient of the samples' mean loss, shaped like the weight."""
    return stack([surrogate.gradient(i) for i in range(len(surrogate))]).mean(0)


def lissa(
    surrogate: Surrogate,
    v: Tensor,
    *,
    steps: int = 5000,
    damp: float = 0.01,
    scale: float = 25.0,
    seed: int = 0,
) -> Tensor:
    """About `(Hess + damp * scale * 1)^-1 v`, Hess of the surrogate's mean loss; shaped like v.

    Raises ValueError when the sum diverges.
    """
    order = np.random.default_rng(seed).integers(len(surrogate), size=steps)
    estimate = v
    for number, i in enumerate(order.tolist(), 1):
        estimate = step(surrogate, v, estimate, i, damp=damp, scale=scale, number=number)
    return estimate / scale


def influences(surrogate: Surrogate, u: Tensor) -> np.ndarray:
    """Influence (N,) of removing each sample."""
    return np.array([influence(surrogate, i, u) for i in range(len(surrogate))])
