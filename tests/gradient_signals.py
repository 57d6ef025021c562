"""Signals with projected gradients, for the methods that read them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scorers.signals.columns import Signals
from tests.signal_factory import sample_ids, sample_signals


def gradient_signals(
    phi: ArrayLike, *, target: ArrayLike | None = None, seed: int = 0, **samples: ArrayLike
) -> Signals:
    """One sample for each row of `phi` (N, k); `target` (M, k) becomes the view of that name."""
    vectors = np.asarray(phi, dtype=np.float32)
    columns = {"head_grad_norm": np.linalg.norm(vectors, axis=1), **samples}
    base = sample_signals(sample_ids(len(vectors), seed), **columns)
    others = {} if target is None else {"target": gradient_signals(target, seed=seed + 1)}
    return replace(base, vectors={"head_grad_projection": vectors}, others=others)


def moved(signals: Signals, order: NDArray[np.int64]) -> Signals:
    """The same samples in another order; views stay as they are."""
    return replace(
        signals,
        ids=signals.ids[order],
        samples={name: column[order] for name, column in signals.samples.items()},
        vectors={name: vector[order] for name, vector in signals.vectors.items()},
    )
