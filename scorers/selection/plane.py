"""The error-uncertainty plane of Q-Tuning: where samples lie, and what meets the target (arXiv 2509.23873).

A plane divides the samples of a batch among themselves, and B batches of n samples are divided at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scorers.selection.ranking import keep_highest, middle_ranks
from scorers.signals.columns import Bools, Floats, Ints

Fill = Literal["paper", "boundary", "none"]

QUADRANTS = np.array(["Q1", "Q2", "Q3", "Q4", "band"])
# What became of a sample: its place, numbered as in QUADRANTS; or it was added to meet the target, as one of
# Q2 or of Q4, whose number here is added to that of its place; or it was removed to meet it.
Q1, Q2, Q3, Q4, BAND = range(5)
FILL_Q2, FILL_Q4, TRIMMED = 5, 10, 15
_FATES = np.arange(TRIMMED + 1)
ADDED = (_FATES >= FILL_Q2) & (_FATES < TRIMMED)
KEPT = np.isin(_FATES, (Q2, Q4)) | ADDED
LIKE_Q2 = (_FATES == Q2) | (ADDED & (_FATES < FILL_Q4))

WIDEST, _STEPS, _CLOSE_ENOUGH = 0.49, 10, 0.01  # the paper's bisection
_FLAT = 1e-12  # a min-max range below this is no range


@dataclass(frozen=True, slots=True)
class Plane:
    """B batches of n samples, divided. ppl, entropy: (B, n). place: (B, n), Q1 to BAND. cuts: by name, each
    (B,)."""

    ppl: Floats
    entropy: Floats
    place: Ints
    cuts: dict[str, Floats]


def divide(ppl: Floats, entropy: Floats, share: float) -> Plane:
    """Bisect for the tail share at which Q2 and Q4 hold about `share`, in each batch. Inputs: (B, n)."""
    ppl_ordered, entropy_ordered = np.sort(ppl, axis=1), np.sort(entropy, axis=1)
    count = len(ppl)
    low, high, alpha = np.zeros(count), np.full(count, WIDEST), np.zeros(count)
    searching = np.ones(count, dtype=np.bool_)
    for _ in range(_STEPS):
        alpha = np.where(searching, (low + high) / 2, alpha)
        ppl_low, ppl_high = linear_quantile(ppl_ordered, alpha), linear_quantile(ppl_ordered, 1 - alpha)
        entropy_low = linear_quantile(entropy_ordered, alpha)
        entropy_high = linear_quantile(entropy_ordered, 1 - alpha)
        is_low_ppl, is_high_ppl = ppl <= ppl_low[:, None], ppl > ppl_high[:, None]
        is_low_entropy, is_high_entropy = entropy <= entropy_low[:, None], entropy > entropy_high[:, None]
        kept = np.mean((is_high_ppl & is_low_entropy) | (is_low_ppl & is_high_entropy), axis=1)
        searching &= np.abs(kept - share) >= _CLOSE_ENOUGH
        if not searching.any():
            break
        low, high = np.where(kept < share, alpha, low), np.where(kept < share, high, alpha)
    return Plane(
        ppl=ppl,
        entropy=entropy,
        place=place_of(is_high_ppl, is_low_ppl, is_high_entropy, is_low_entropy),
        cuts={
            "alpha": alpha,
            "ppl_low": ppl_low,
            "ppl_high": ppl_high,
            "entropy_low": entropy_low,
            "entropy_high": entropy_high,
        },
    )


def place_of(high_ppl: Bools, low_ppl: Bools, high_entropy: Bools, low_entropy: Bools) -> Ints:
    """The place of each sample, Q1 to BAND, given what is over and under the thresholds."""
    return np.select(
        [high_ppl & high_entropy, high_ppl & low_entropy, low_ppl & low_entropy, low_ppl & high_entropy],
        [Q1, Q2, Q3, Q4],
        default=BAND,
    )


def linear_quantile(ordered: Floats, share: Floats) -> Floats:
    """Linearly interpolated quantile of each row, (B,), equal to `np.quantile` to the last bit.

    ordered: (B, n), sorted along axis 1. share: (B,) in [0, 1]. The bisection asks for forty quantiles of the
    same values, so they are sorted once.
    """
    last = ordered.shape[1] - 1
    at = last * share
    left = np.floor(at).astype(np.int64)
    step = at - left
    rows = np.arange(len(ordered))
    a, b = ordered[rows, left], ordered[rows, np.minimum(left + 1, last)]
    quantile: Floats = np.where(step < 0.5, a + (b - a) * step, b - (b - a) * (1 - step))
    return quantile


def _minmax(values: Floats) -> Floats:
    """Each row (axis 1) stretched to [0, 1]; a row without range becomes zeros."""
    lowest = values.min(axis=1, keepdims=True)
    width = values.max(axis=1, keepdims=True) - lowest
    stretched = np.zeros_like(values)
    np.divide(values - lowest, width, out=stretched, where=width >= _FLAT)
    return stretched


def meet_target(
    plane: Plane, ids: NDArray[np.str_], rows: Ints, share: float, fill: Fill, *, exact: bool
) -> tuple[Ints, dict[str, Floats]]:
    """What became of each sample, (B, n), and how far batches were filled or trimmed. rows: (B, n), which of
    the `ids` is each sample's."""
    reason = plane.place.copy()
    n = reason.shape[1]
    target = min(max(round(share * n), 1), n)
    lean = _minmax(plane.ppl) - _minmax(plane.entropy)
    gap = np.abs(lean)
    fill_gaps: list[float] = []
    fill_alphas: list[float] = []
    trim_gaps: list[float] = []
    for row, kept in enumerate(KEPT[reason]):
        held = int(kept.sum())
        missing = max(target if fill != "none" else 1, held) - held
        if missing:
            others = np.flatnonzero(~kept)
            leaning, score = lean[row], gap[row]
            if fill == "boundary":
                leaning, alpha = _moved(plane.ppl[row], plane.entropy[row])
                score = -alpha
            added = others[keep_highest(score[others], ids, missing, among=rows[row, others])]
            reason[row, added] += np.where(leaning[added] >= 0, FILL_Q2, FILL_Q4)
            (fill_alphas if fill == "boundary" else fill_gaps).append(abs(float(score[added].min())))
        elif held > target and exact:
            inside = np.flatnonzero(kept)
            removed = inside[~keep_highest(gap[row, inside], ids, target, among=rows[row, inside])]
            reason[row, removed] = TRIMMED
            trim_gaps.append(gap[row, removed].max())
    return reason, {
        "fill_gap": np.array(fill_gaps),
        "fill_alpha": np.array(fill_alphas),
        "trim_gap": np.array(trim_gaps),
    }


def _moved(ppl: Floats, entropy: Floats) -> tuple[Floats, Floats]:
    """Of each sample (n,): by how many ranks its perplexity is over its entropy, and the least tail share
    alpha, from 0 to 1, at which it is in Q2 or Q4 by its ranks."""
    last = len(ppl) - 1
    error, doubt = middle_ranks(ppl), middle_ranks(entropy)
    alpha = np.minimum(np.maximum(last - error, doubt), np.maximum(error, last - doubt))
    return error - doubt, alpha / max(last, 1)
