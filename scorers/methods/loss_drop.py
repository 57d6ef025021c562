"""Loss drop: what becomes likelier by a short tuning on a target set (arXiv 2605.09404).

A copy of the proxy is tuned briefly on rows of the wanted kind. What that makes it lose less on would have
helped to learn them: the score of a sample is the share of its loss that goes,

    (nll - nll_tuned) / nll,   mean response losses before and after

Two passes over the corpus and no gradient of any of its samples. High is kept; below 0 is what the tuning
made less likely.

Notable choices:
- the tuned proxy is the reference model `tuned` (`datapruner.measuring.tuned`), which other methods can read
  as well; any other reference model with the proxy's tokens does, such as one that was tuned elsewhere;
- relative to the loss before: the abstract speaks of a normalised loss drop at the end of the tuning, and we
  read the loss at its start as what it is normalised by. The drop itself would rank by how much there is;
- a response that was certain before (nll 0) scores 0 if it stays so, and lowest if it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, sample_column, view
from scorers.selection.ranking import ranked_selection
from scorers.signals.columns import Floats, Signals

LOSS_DROP = Column(
    "loss_drop",
    "share of the mean nll that is gone under the reference model; below 0 where it has grown",
    direction="high",
    at_most=1,
)


class LossDrop:
    """Keep the ceil(share * N) samples that lose most of their loss under the reference model."""

    name = "loss-drop"
    title = "Loss drop: share of the loss that a short tuning on a target set takes away"
    paper = "arXiv 2605.09404"
    options = Options
    presets: Mapping[str, Mapping[str, Any]] = {}
    columns: tuple[Column, ...] = (
        LOSS_DROP,
        Column("reference_nll", "mean nll under the reference model", unit="nats", at_least=0),
        LOSS_DROP.cut(),
    )

    def needs(self, options: Options) -> frozenset[str]:
        return frozenset({"nll", "reference:nll"})

    def scores(self, signals: Signals, options: Options, seed: int) -> Columns:
        after = sample_column(view(signals, "reference"), "nll")
        return {"loss_drop": drop(sample_column(signals, "nll"), after), "reference_nll": after}

    def token_scores(self, signals: Signals, options: Options) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: Options, seed: int
    ) -> Selection:
        values = np.asarray(scores["loss_drop"], dtype=np.float64)
        return ranked_selection(
            signals, values, share, among="relative loss drop among the highest", shown={"loss_drop": values}
        )


def drop(before: Floats, after: Floats) -> Floats:
    """(before - after) / before of losses that are 0 or more, (N,). Finite: from a loss of 0 it is 0 or, when
    there is one after, the lowest number there is."""
    found = np.where(after > 0, np.finfo(np.float64).min, 0.0)
    np.divide(before - after, before, out=found, where=before > 0)
    return found
