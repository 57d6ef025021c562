"""UPD: prediction difficulty where the model was sure of something else (D3, arXiv 2503.11441).

D3 asks how difficult a response is, and does not want to take it for difficult where much could have been
said: a token counts by its loss, through a sigmoid, and the less the flatter the distribution that it was
predicted from:

    UPD_t = sigmoid(nll_t) * max(0, 1 - H_t / ln V),   V tokens in the vocabulary

A sample's score is the mean over its response. This is one of the three things that D3 weighs, and selects by
alone here: the others are a distance between samples and the opinion of a large model.

Notable choices:
- V is the size of the head, as the model's configuration states it; where models pad it, padding is in it;
- end-of-turn tokens are tokens of the response like any others, as in every signal;
- the sigmoid of a loss is 0.5 at least: a token that was certain and right counts half, so a response that
  says nothing new is not near 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, sample_column, token_column
from scorers.selection.ranking import ranked_selection
from scorers.signals.columns import Floats, Signals

UPD = Column(
    "upd",
    "mean over the response of sigmoid(nll) times how far the entropy is below that of a uniform guess",
    direction="high",
    at_least=0,
    at_most=1,
)


class Upd:
    """Keep the ceil(share * N) samples of highest difficulty where the model was sure."""

    name = "upd"
    title = "UPD: prediction difficulty, less where much could have been said"
    paper = "arXiv 2503.11441"
    options = Options
    presets: Mapping[str, Mapping[str, Any]] = {}
    columns: tuple[Column, ...] = (UPD, UPD.cut())

    def needs(self, options: Options) -> frozenset[str]:
        return frozenset({"token:nll", "token:entropy", "vocabulary"})

    def scores(self, signals: Signals, options: Options, seed: int) -> Columns:
        return {"upd": difficulty(signals)}

    def token_scores(self, signals: Signals, options: Options) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: Options, seed: int
    ) -> Selection:
        values = np.asarray(scores["upd"], dtype=np.float64)
        return ranked_selection(
            signals, values, share, among="prediction difficulty among the highest", shown={"upd": values}
        )


def difficulty(signals: Signals) -> Floats:
    """UPD of each sample, (N,), 0 for one without response tokens.

    Raises ValueError when a signal was not measured.
    """
    nll, entropy = token_column(signals, "nll"), token_column(signals, "entropy")
    widest = np.log(sample_column(signals, "vocabulary"))
    total = np.zeros(len(signals))
    for samples, tokens in signals.blocks():
        lengths = signals.lengths_in(samples)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        loss = 1 / (1 + np.exp(-nll[tokens].astype(np.float64)))
        sure = np.maximum(0, 1 - entropy[tokens].astype(np.float64) / widest[samples][owner])
        total[samples] = np.bincount(owner, weights=loss * sure, minlength=len(lengths))
    return total / np.maximum(signals.lengths, 1)
