"""HES: the sum of a response's highest entropies (arXiv 2605.22389).

Most tokens of a long chain of thought are all but certain; the few at which several continuations are open
are where it decides something. HES adds up the entropies of these alone: the highest 0.5 % of the response's
tokens. Nothing is divided by the length: twice as many decisions are worth twice as much, so that the score
grows with the response, a step for every 200 tokens. The paper keeps the highest fifth of a reasoning corpus.

Notable choices:
- of T tokens ceil(0.005 T) are counted, at least one. That is how many are at or above the 99.5th percentile,
  linearly interpolated, which is how a published implementation cuts; where it takes more, because tokens tie
  at the cut, as many as that are counted here;
- nats, where that implementation has bits: the order is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option, token_column
from scorers.selection.ranking import ranked_selection
from scorers.shares import tolerant_ceil
from scorers.signals.columns import Floats, Signals

HES = Column(
    "hes",
    "sum of the response's highest token entropies, half a per cent of them",
    unit="nats",
    direction="high",
    at_least=0,
)


@dataclass(frozen=True, slots=True)
class HesOptions(Options):
    top: float = option(
        0.005, "share of a response's tokens, those of highest entropy, that are added up", above=0, at_most=1
    )


class Hes:
    """Keep the ceil(share * N) samples whose few highest token entropies add up to most."""

    name = "hes"
    title = "HES: sum of the highest token entropies of a response"
    paper = "arXiv 2605.22389"
    options = HesOptions
    presets: Mapping[str, Mapping[str, Any]] = {"paper-sft": {"keep": 0.2, "top": 0.005}}
    columns: tuple[Column, ...] = (HES, HES.cut())

    def needs(self, options: HesOptions) -> frozenset[str]:
        return frozenset({"token:entropy"})

    def scores(self, signals: Signals, options: HesOptions, seed: int) -> Columns:
        return {"hes": highest_sums(signals, options.top)}

    def token_scores(self, signals: Signals, options: HesOptions) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: HesOptions, seed: int
    ) -> Selection:
        values = np.asarray(scores["hes"], dtype=np.float64)
        return ranked_selection(
            signals, values, share, among="sum of highest entropies among the highest", shown={"hes": values}
        )


def highest_sums(signals: Signals, top: float) -> Floats:
    """Of each sample the sum of its ceil(top * T) highest token entropies, (N,); 0 without tokens.

    Raises ValueError when token entropies were not measured.
    """
    entropy, offsets = token_column(signals, "entropy"), signals.offsets
    total = np.zeros(len(signals))
    for samples, tokens in signals.blocks():
        lengths = signals.lengths_in(samples)
        some = samples.start + np.flatnonzero(lengths)  # a maximum over none would be the next sample's first
        if len(some):
            total[some] = np.maximum.reduceat(entropy[tokens], offsets[some] - tokens.start)
        for sample in some[lengths[some - samples.start] * top > 1]:
            values = entropy[offsets[sample] : offsets[sample + 1]]
            count = tolerant_ceil(top * len(values))
            highest = np.partition(values, len(values) - count)[len(values) - count :]
            total[sample] = np.sort(highest).sum(dtype=np.float64)
    return total
