"""Reward: keep what a reward model scores highest (scores of preference models: arXiv 2203.02155).

Any model with a head for sequence classification, as `--reward-model` names it: one output is the reward; of
several the option `label` names the one that counts. Of classes that exclude one another it is the logarithm
of the class's probability.

Notable choice: a reward is of the whole conversation, read by the reward model's own chat template, and never
of a part: rows longer than that model reads are errors with that reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option, sample_column
from scorers.selection.ranking import ranked_selection
from scorers.signals.columns import REWARD, Signals, corpus_need

REWARDED = Column("reward", "the reward model's output, or ln of its label's probability", direction="high")


@dataclass(frozen=True, slots=True)
class RewardOptions(Options):
    label: str = option("", "the output that counts, by its name in the model; needed where it has several")


class Reward:
    """Keep the ceil(share * N) samples of the highest reward."""

    name = "reward"
    title = "Scores of a reward model"
    paper = "arXiv 2203.02155"
    options = RewardOptions
    presets: Mapping[str, Mapping[str, Any]] = {}
    columns: tuple[Column, ...] = (REWARDED, REWARDED.cut())

    def needs(self, options: RewardOptions) -> frozenset[str]:
        return frozenset({corpus_need(REWARD, label=options.label)})

    def scores(self, signals: Signals, options: RewardOptions, seed: int) -> Columns:
        [need] = self.needs(options)
        return {"reward": sample_column(signals, need)}

    def token_scores(self, signals: Signals, options: RewardOptions) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: RewardOptions, seed: int
    ) -> Selection:
        values = np.asarray(scores["reward"], dtype=np.float64)
        shown = {"reward": values}
        return ranked_selection(signals, values, share, among="reward among the highest", shown=shown)
