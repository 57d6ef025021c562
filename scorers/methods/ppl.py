"""Perplexity: the plainest selector, and the one definition of perplexity that every method shares.

Marion et al. (arXiv 2309.04564) prune pre-training text by it and find that keeping the middle works best.

Notable choices, ours:
- the default keeps the lowest perplexity: in instruction data the highest is where mismatched answers lie;
- the middle is taken around the median rank rather than the median value, which heavy tails cannot move;
- perplexity is exp(nll) up to 700 nats and finite, strictly rising beyond, where exp would overflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option, sample_column
from scorers.selection.ranking import middle_ranks, ranked_selection
from scorers.signals.columns import Floats, Signals

PPL = Column("ppl", "response perplexity, exp of the mean nll", at_least=1)

_EXACT_UP_TO = 700.0  # nats; exp overflows float64 at 709.78
_HEADROOM = 9.0  # the last nats before overflow, into which all of (700, inf] is folded


def perplexity(nll: ArrayLike) -> Floats:
    """exp(nll) in float64, never infinite: nll over 700 nats is folded into 700 to 709, in order.

    Quantiles, min-max ranges and sums of neighbours stay finite and no comparison changes. NaN stays NaN.
    """
    nats = np.array(nll, dtype=np.float64)
    over = nats > _EXACT_UP_TO
    if over.any():
        excess = nats[over] - _EXACT_UP_TO
        nats[over] = _EXACT_UP_TO + _HEADROOM * (1 - 1 / (1 + excess))
    return np.exp(nats, out=nats)


@dataclass(frozen=True, slots=True)
class PplOptions(Options):
    prefer: Literal["low", "high", "middle"] = option(
        "low", "which perplexities are kept: the lowest, the highest, or those around the median rank"
    )


class Ppl:
    """Keep the ceil(share * N) samples of lowest, highest or most median response perplexity."""

    name = "ppl"
    title = "Response perplexity"
    paper = "arXiv 2309.04564"
    options = PplOptions
    presets: Mapping[str, Mapping[str, Any]] = {}
    columns: tuple[Column, ...] = (
        PPL.kept("low"),
        PPL.cut(),
        Column(
            "ranks_off_middle",
            "ranks from the median, of the last sample kept (prefer=middle)",
            "threshold",
            at_least=0,
        ),
    )

    def needs(self, options: PplOptions) -> frozenset[str]:
        return frozenset({"nll"})

    def scores(self, signals: Signals, options: PplOptions, seed: int) -> Columns:
        return {"ppl": perplexity(sample_column(signals, "nll", infinite=True))}

    def token_scores(self, signals: Signals, options: PplOptions) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: PplOptions, seed: int
    ) -> Selection:
        ppl = np.asarray(scores["ppl"], dtype=np.float64)
        if options.prefer == "middle":
            off_middle = np.abs(middle_ranks(ppl) - (len(ppl) - 1) / 2)
            among = "perplexity among the closest to the median"
            return ranked_selection(
                signals, -off_middle, share, among=among, shown={"ranks_off_middle": off_middle}
            )
        values, extreme = (-ppl, "lowest") if options.prefer == "low" else (ppl, "highest")
        return ranked_selection(
            signals, values, share, among=f"perplexity among the {extreme}", shown={"ppl": ppl}
        )
