"""Random selection: the control that every report compares with. Named so as not to shadow `random`.

Notable choice: each sample's draw is a hash of the seed and its id. The same sample has the same draw in any
order, any subset and any later version of a corpus, and a smaller share is contained in a larger one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection
from scorers.selection.ranking import draws, ranked_selection
from scorers.signals.columns import Signals

DRAW = Column(
    "random", "uniform draw from the seed and the sample's hash", direction="high", at_least=0, at_most=1
)


class Random:
    """Keep the ceil(share * N) samples with the highest seeded draw."""

    name = "random"
    title = "Random control"
    paper = "none (control)"
    options = Options
    presets: Mapping[str, Mapping[str, Any]] = {}
    columns: tuple[Column, ...] = (DRAW, DRAW.cut())

    def needs(self, options: Options) -> frozenset[str]:
        return frozenset()

    def scores(self, signals: Signals, options: Options, seed: int) -> Columns:
        return {"random": draws(signals.ids, seed)}

    def token_scores(self, signals: Signals, options: Options) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: Options, seed: int
    ) -> Selection:
        draw = np.asarray(scores["random"], dtype=np.float64)
        return ranked_selection(
            signals, draw, share, among="random draw among the highest", shown={"random": draw}
        )
