"""CCS: coverage-centric selection over any score (arXiv 2210.15809).

At high pruning rates the hardest samples alone are worse than chance. CCS drops the very hardest as likely
mislabelled, and draws the rest evenly from the bins of the score (`coverage`).

Notable choices:
- the paper's score is AUM or EL2N over training epochs; a proxy model has one state, so EL2N of that one;
- perplexity is heavy-tailed: in bins of equal width most samples share the first one. That is the method as
  written; `nll`, its logarithm, spreads better;
- the cut is by the score that is covered; the authors' code always cuts by AUM, which one state has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option, sample_column
from scorers.methods.ppl import perplexity
from scorers.selection.coverage import COVERAGE, coverage_selection
from scorers.signals.columns import Signals


@dataclass(frozen=True, slots=True)
class CcsOptions(Options):
    """The paper tunes the cut to each dataset and pruning rate, from nothing to a half; a tenth is DEALRec's.
    Fifty bins are the paper's."""

    score: Literal[
        "el2n", "nll", "ppl", "entropy", "head_grad_norm", "head_grad_dot", "n_response_tokens"
    ] = option("el2n", "the score whose range is covered")
    hardest: Literal["high", "low"] = option("high", "which end of the score is the hard one, cut first")
    hard_prune: float = option(
        0.1, "share of the samples, the hardest, cut before drawing", at_least=0, below=1
    )
    bins: int = option(50, "K: score bins that samples are drawn from", at_least=1, at_most=1_000_000)


class Ccs:
    """Exactly ceil(share * N) samples, drawn evenly over the range of a score.

    Where share and `hard_prune` together exceed 1, fewer samples are cut.
    """

    name = "ccs"
    title = "CCS: even coverage of a score's range, without the hardest"
    paper = "arXiv 2210.15809"
    options = CcsOptions
    presets: Mapping[str, Mapping[str, Any]] = {}
    columns: tuple[Column, ...] = (
        Column("ccs", "the score whose range is covered, as its own method shows it"),
        *COVERAGE,
    )

    def needs(self, options: CcsOptions) -> frozenset[str]:
        return frozenset({_signal(options)})

    def scores(self, signals: Signals, options: CcsOptions, seed: int) -> Columns:
        """`ccs`: the chosen score, as the other methods show it."""
        values = sample_column(signals, _signal(options), infinite=options.score == "ppl")
        return {"ccs": perplexity(values) if options.score == "ppl" else values}

    def token_scores(self, signals: Signals, options: CcsOptions) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: CcsOptions, seed: int
    ) -> Selection:
        """Besides the masks each sample's score `bin`, from the easiest on; -1 for one that was cut."""
        values = np.asarray(scores["ccs"], dtype=np.float64)
        return coverage_selection(
            signals,
            values,
            share,
            hardest=options.hardest,
            hard_prune=options.hard_prune,
            bins=options.bins,
            seed=seed,
            name=options.score,
        )


def _signal(options: CcsOptions) -> str:
    return "nll" if options.score == "ppl" else options.score
