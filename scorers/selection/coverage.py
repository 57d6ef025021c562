"""Coverage-enhanced selection: a fixed number of samples, spread evenly over the range of a score.

Bins of equal width, and from the emptiest to the fullest an equal share of what is left to draw (arXiv
2401.17197; before it CCS, arXiv 2210.15809). Rare scores are kept nearly whole, common ones are thinned.

Notable choices:
- exactly as many samples as asked for come out. The papers first drop a share of the highest scores; where
  the rest would be too few, fewer are dropped;
- a bin holds its upper edge, as in DEALRec's code, and the lowest bin its lower edge too;
- bins of equal size take turns from the lowest score on, and inside a bin the samples with the highest
  draws are taken, so that the same samples are chosen whatever order they come in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scorers.column import Column
from scorers.method import Selection
from scorers.selection.ranking import all_tokens, draws, keep_highest
from scorers.shares import count_to_keep, tolerant_floor
from scorers.signals.columns import Bools, Floats, Ints, Signals

COVERAGE = (
    Column(
        "bin",
        "bin of the score, from the easy end on; -1 for a sample cut as too hard",
        "selection",
        "whole",
        at_least=-1,
    ),
    Column("bins_used", "bins that had samples", "threshold", "whole", at_least=1),
    Column("bin_width", "width of a bin, in units of the score", "threshold", at_least=0),
    Column("cut", "least hard score that was cut", "threshold"),
)
"""What `coverage_selection` writes."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """keep: (N,) exactly the samples asked for. cut: (N,) those dropped for the highest values.

    bin: (N,) 0-based score bin, from the lowest values on; -1 for a sample that was cut.
    """

    keep: Bools
    cut: Bools
    bin: Ints


def cover(
    values: Floats, ids: NDArray[np.str_], count: int, *, hard_prune: float, bins: int, seed: int
) -> Coverage:
    """Choose `count` of the N samples: drop the highest values, then draw evenly from bins of the rest.

    values: (N,), finite. 0 <= count <= N. hard_prune: share of the samples dropped, in [0, 1), rounded down
    and lowered to N - count at most. bins: K equal-width bins over the range of what is left.
    """
    n = len(values)
    cut = keep_highest(values, ids, min(tolerant_floor(hard_prune * n), n - count))
    rest = np.flatnonzero(~cut)
    place = equal_width_bins(values[rest], bins)
    order = np.argsort(place, kind="stable")
    groups = np.split(rest[order], np.flatnonzero(np.diff(place[order])) + 1) if len(rest) else []
    drawn = draws(ids, seed)
    keep = np.zeros(n, dtype=np.bool_)
    groups.sort(key=len)  # stable: equal sizes from the lowest bin on
    left = count
    for taken, group in enumerate(groups):
        quota = min(len(group), left // (len(groups) - taken))
        keep[group[keep_highest(drawn[group], ids, quota, among=group)]] = True
        left -= quota
    assert left == 0, f"{left} of {count} samples were not found"
    bin_of = np.full(n, -1, dtype=np.int64)
    bin_of[rest] = place
    return Coverage(keep, cut, bin_of)


def equal_width_bins(values: Floats, bins: int) -> Ints:
    """0-based bin of each value, (N,): `bins` of equal width from the least to the largest value, each with
    its upper edge. Values that are all alike are in bin 0."""
    if len(values) == 0:
        return np.empty(0, dtype=np.int64)
    # a power of two loses no digit, and after it neither the range nor the product can overflow
    _, exponent = np.frexp(np.abs(values).max())
    scaled = np.ldexp(values, -int(exponent))
    above = scaled - scaled.min()
    width = above.max()
    if width == 0:
        return np.zeros(len(values), dtype=np.int64)
    place: Ints = np.ceil(above * bins / width).astype(np.int64) - 1
    return np.clip(place, 0, bins - 1)


def coverage_selection(
    signals: Signals,
    values: Floats,
    share: float,
    *,
    hardest: Literal["high", "low"] = "high",
    hard_prune: float,
    bins: int,
    seed: int,
    name: str,
) -> Selection:
    """`count_to_keep` samples spread over `values`, kept whole, with a reason each and a column `bin`.

    values: (N,), finite. hardest: which end of them is cut first; bins count from the other end. name: of the
    score, for the reasons.

    thresholds: `bins_used` of the bins had samples, each `bin_width` wide; `cut` is the least hard score cut.
    """
    hardness = values if hardest == "high" else -values
    count = count_to_keep(share, len(signals))
    chosen = cover(hardness, signals.ids, count, hard_prune=hard_prune, bins=bins, seed=seed)
    thresholds = {}
    if len(values):
        inside = values[~chosen.cut]
        thresholds = {
            "bins_used": float(len(np.unique(chosen.bin[~chosen.cut]))),
            "bin_width": float(inside.max() / bins - inside.min() / bins),
        }
    cut, wanted = int(chosen.cut.sum()), tolerant_floor(hard_prune * len(values))
    if chosen.cut.any():
        thresholds["cut"] = float(values[chosen.cut][np.argmin(hardness[chosen.cut])])
    return Selection(
        keep=chosen.keep,
        reason=np.select([chosen.keep, chosen.cut], [0, 2], default=1),
        reasons=(
            f"{name}: drawn from its score bin",
            f"{name}: not drawn from its score bin",
            f"{name} among the {hardest}est {100 * hard_prune:.6g} %, cut before drawing",
        ),
        token_keep=all_tokens(signals),
        thresholds=thresholds,
        columns={"bin": chosen.bin},
        warnings=(
            ()
            if cut == wanted
            else (
                f"{name}: {cut:,} of the {hardest}est cut where hard_prune asks for {wanted:,}, as {count:,} "
                "are to be kept",
            )
        ),
    )
