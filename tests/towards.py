"""A method that selects towards a target set, as plainly as can be."""

from __future__ import annotations

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, view
from scorers.selection.ranking import ranked_selection
from scorers.signals.columns import Signals

GRADIENT = "head_grad_projection"


class Towards:
    """Samples whose gradient points where the target set's mean does."""

    name, title, paper = "towards", "Towards a target", "none"
    options, presets = Options, {}
    columns: tuple[Column, ...] = (Column("towards", "agreement with the target", direction="high"),)

    def needs(self, options: Options) -> frozenset[str]:
        return frozenset({GRADIENT, f"target:{GRADIENT}"})

    def scores(self, signals: Signals, options: Options, seed: int) -> Columns:
        target = view(signals, "target")
        aim = target.vectors[GRADIENT][np.arange(len(target))].mean(0)
        return {"towards": (signals.vectors[GRADIENT][np.arange(len(signals))] @ aim).astype(np.float64)}

    def token_scores(self, signals: Signals, options: Options) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: Options, seed: int
    ) -> Selection:
        values = np.asarray(scores["towards"], dtype=np.float64)
        return ranked_selection(signals, values, share, among="agreement among the highest", shown={})
