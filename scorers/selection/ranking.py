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
from scorers.signals.columns import Bools, Floats, Ints, Signals, let_go

_DRAWN_AT_ONCE = 1 << 16


def keep_highest(values: Floats, ids: NDArray[np.str_], count: int, *, among: Ints | None = None) -> Bools:
    """Mask (N,) of exactly `count` samples with the highest values, ties by smaller id.

    values: (N,), no NaN. among: (N,), which of the `ids` are theirs, by default each in its turn. 0 <= count
    <= N. O(N), but for a sort of the ids tied at the cut.
    """
    n = len(values)
    if count <= 0 or count >= n:
        return np.full(n, count > 0)
    cut = np.partition(values, n - count)[n - count]
    keep: Bools = values > cut
    tied = np.flatnonzero(values == cut)
    wanted = count - int(keep.sum())
    if wanted < len(tied):
        theirs = ids[tied if among is None else among[tied]]
        tied = tied[np.argsort(theirs, kind="stable")[:wanted]]
    keep[tied] = True
    return keep


def ordered(ids: NDArray[np.str_], *keys: NDArray[np.generic]) -> Ints:
    """The order, (N,), by the last of these keys (N,), then by those before it, and of equals by their ids,
    of which no others are looked at."""
    order = np.lexsort(keys)
    alike = np.ones(max(len(order) - 1, 0), dtype=np.bool_)
    for key in keys:
        alike &= key[order[1:]] == key[order[:-1]]
    tied = np.append(alike, False) | np.append(False, alike) if len(order) else alike
    some = order[tied]
    order[tied] = some[np.lexsort((ids[some], *(key[some] for key in keys)))]
    return order


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
