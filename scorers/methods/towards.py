"""Keep what pulls the model where a target set would: cosine of head gradients to the target's mean.

The idea is LESS (arXiv 2402.04333), but not the method: LESS warms a LoRA up on the corpus, takes gradients
at several checkpoints, corrects those of training samples by Adam's state, and takes the best over subtasks.
This is the plain cosine of projected output-head gradients at one state of the proxy, hence its own name.

Notable choice: as in LESS, samples are compared by cosine rather than inner product, which would prefer short
responses: their mean gradients are the longest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection
from scorers.selection.influence import PROJECTION, gradients, target_gradient
from scorers.selection.ranking import ranked_selection
from scorers.signals.columns import Floats, Signals

COSINE = Column(
    "target_cosine",
    "cosine of the sample's projected gradient to the target set's mean",
    direction="high",
    at_least=-1,
    at_most=1,
)


class TargetCosine:
    """Keep the ceil(share * N) samples whose gradients point most as the target set's do."""

    name = "target-cosine"
    title = "Cosine of head gradients to a target set's mean (LESS without its optimizer and checkpoints)"
    paper = "arXiv 2402.04333"
    options = Options
    presets: Mapping[str, Mapping[str, Any]] = {}
    columns: tuple[Column, ...] = (COSINE, COSINE.cut())

    def needs(self, options: Options) -> frozenset[str]:
        return frozenset({PROJECTION, f"target:{PROJECTION}"})

    def scores(self, signals: Signals, options: Options, seed: int) -> Columns:
        """Raises ValueError also when the target set's mean gradient is zero."""
        return {"target_cosine": cosines(signals, target_gradient(signals))}

    def token_scores(self, signals: Signals, options: Options) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: Options, seed: int
    ) -> Selection:
        values = np.asarray(scores["target_cosine"], dtype=np.float64)
        return ranked_selection(
            signals,
            values,
            share,
            among="cosine to the target set among the highest",
            shown={"target_cosine": values},
        )


def cosines(signals: Signals, v: Floats) -> Floats:
    """Cosine (N,) of each sample's projected head gradient to v (k,); 0 for a sample without gradient.

    Raises ValueError when v is zero.
    """
    length = float(np.linalg.norm(v))
    if length == 0:
        raise ValueError("the target set's mean gradient is zero: it points nowhere; name another target set")
    values = np.zeros(len(signals))
    for rows, block in gradients(signals):
        # row by row, not by matrix product, whose last bits depend on which rows are together
        dots, norms = (block * v).sum(axis=1), np.sqrt((block * block).sum(axis=1))
        np.divide(dots, norms * length, out=dots, where=norms > 0)
        values[rows] = dots
    return values
