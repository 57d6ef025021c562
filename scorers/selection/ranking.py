"""Exact top-k by a score, shared by every method that ranks samples.

Notable choices:
- ties are broken by sample id, smaller first, so the same samples are kept whatever order they came in;
- draws come from a hash of (seed, sample id), so a sample's draw does not depend on the rest of the corpus.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from scorers.method import Selection
from scorers.shares import count_to_keep
from scorers.signals.columns import Bools, Floats, Signals, let_go

_DRAWN_AT_ONCE = 1 << 16


def keep_highest(values: Floats, ids: NDArray[np.str_], count: int) -> Bools:
    """Mask (N,) of exactly `count` samples with the highest values, ties by smaller id.

    values: (N,), no NaN. 0 <= count <= N. O(N), but for a sort of the ids tied at the cut.
    """
    n = len(values)
    if count <= 0 or count >= n:
        return np.full(n, count > 0)
    cut = np.partition(values, n - count)[n - count]
    keep: Bools = values > cut
    tied = np.flatnonzero(values == cut)
    wanted = count - int(keep.sum())
    if wanted < len(tied):
        tied = tied[np.argsort(ids[tied], kind="stable")[:wanted]]
    keep[tied] = True
    return keep


def ranked_selection(
    signals: Signals,
    values: Floats,
    share: float,
    *,
    among: str,
    shown: Mapping[str, Floats],
) -> Selection:
    """Keep the `count_to_keep` samples with the highest values, whole.

    values: (N,), no NaN. among: what the highest are, such as "perplexity among the lowest", for the reasons.
    shown: the columns (N,) to report the cut in, by threshold name: the value of the last sample kept.
    """
    keep = keep_highest(values, signals.ids, count_to_keep(share, len(signals)))
    kept = np.flatnonzero(keep)
    last = kept[np.argmin(values[kept])] if len(kept) else None
    percent = f"{100 * share:.6g} %"
    return Selection(
        keep=keep,
        reason=np.where(keep, 0, 1),
        reasons=(f"{among} {percent}", among.replace(" among", " not among") + f" {percent}"),
        token_keep=all_tokens(signals),
        thresholds={} if last is None else {name: float(column[last]) for name, column in shown.items()},
    )


def middle_ranks(values: Floats) -> Floats:
    """0-based rank of each value, (N,); equal values share the mean of the ranks that they cover."""
    ordered = np.sort(values)
    first, after = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return (first + after - 1) / 2


def all_tokens(signals: Signals) -> Bools:
    """The token mask (M,) of a method that prunes no tokens."""
    return np.ones(int(signals.offsets[-1]), dtype=np.bool_)


def draws(ids: NDArray[np.str_], seed: int) -> Floats:
    """One uniform draw from [0, 1) per sample, (N,), a function of the seed and that sample's id alone."""
    prefix = hashlib.blake2b(f"{seed}:".encode(), digest_size=8)

    def draw(sample_id: str) -> float:
        state = prefix.copy()
        state.update(sample_id.encode())
        # 53 bits, all that a float64 holds: the quotient is exact and below 1
        return (int.from_bytes(state.digest(), "big") >> 11) / 2.0**53

    found = np.empty(len(ids))
    for start in range(0, len(ids), _DRAWN_AT_ONCE):
        some = ids[start : start + _DRAWN_AT_ONCE]
        found[start : start + len(some)] = [draw(sample_id) for sample_id in some]
        let_go(ids)
    return found
