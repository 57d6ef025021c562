"""GRAPE: of several responses to one prompt, the one that the model finds most probable (arXiv 2502.04194).

A model is thought to learn best from what is near to what it would say itself. So of the responses that a
corpus has to a prompt one is kept, that of highest probability under the model that is to be trained,
normalised by length: the lowest mean nll.

Notable choices:
- prompts are one when the model sees the same tokens before the response, system prompt and template
  included. Of several turns it is all that is not trained on: conversations with the same questions and other
  answers are responses to one prompt;
- a row whose prompt has no other is the most probable response to it, and stays: it is all that is known of
  that prompt. Where only prompts with a choice are wanted, the column `grape_responses` tells them;
- the best of every prompt is the most that is kept, whatever the share. The paper keeps them all
  (`--keep 100%`); a smaller share keeps the most probable of them, which compares prompts with each other, as
  perplexity does, and is ours;
- of equally probable responses the one with the smaller sample id is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, sample_column
from scorers.selection.ranking import all_tokens, keep_highest, ordered
from scorers.shares import count_to_keep
from scorers.signals.columns import Signals

GRAPE = Column(
    "grape",
    "probability of the response normalised by its length, exp of the negative mean nll",
    direction="high",
    at_least=0,
    at_most=1,
)


class Grape:
    """Keep the most probable response to each prompt, of these at most ceil(share * N), the most probable."""

    name = "grape"
    title = "GRAPE: the most probable of several responses to a prompt"
    paper = "arXiv 2502.04194"
    options = Options
    presets: Mapping[str, Mapping[str, Any]] = {"paper": {"keep": 1.0}}
    columns: tuple[Column, ...] = (
        GRAPE,
        Column(
            "grape_rank",
            "place among the responses to its prompt, 1 the most probable",
            kind="whole",
            at_least=1,
        ),
        Column("grape_responses", "responses that there are to its prompt", kind="whole", at_least=1),
        GRAPE.cut(meaning="least that is kept"),
    )

    def needs(self, options: Options) -> frozenset[str]:
        return frozenset({"nll", "prompt"})

    def scores(self, signals: Signals, options: Options, seed: int) -> Columns:
        nll, prompt = sample_column(signals, "nll", infinite=True), _prompts(signals)
        _, which, sizes = np.unique(prompt, return_inverse=True, return_counts=True)
        order, starts = ordered(signals.ids, nll, which), np.cumsum(sizes) - sizes
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = 1 + np.arange(len(order)) - np.repeat(starts, sizes)
        return {"grape": np.exp(-nll), "grape_rank": rank, "grape_responses": sizes[which]}

    def token_scores(self, signals: Signals, options: Options) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: Options, seed: int
    ) -> Selection:
        """threshold `grape`: the lowest probability that is kept."""
        values = np.asarray(scores["grape"], dtype=np.float64)
        several = np.asarray(scores["grape_responses"], dtype=np.int64) > 1
        best = np.asarray(scores["grape_rank"], dtype=np.int64) == 1
        count = min(count_to_keep(share, len(values)), int(best.sum()))
        keep = keep_highest(np.where(best, values, -1.0), signals.ids, count)
        among = f"among the {100 * share:.6g} % of all rows that are most probable"
        return Selection(
            keep=keep,
            reason=np.select([keep & several, keep, ~best, several], [0, 1, 2, 3], default=4),
            reasons=(
                "GRAPE: the most probable of the responses to its prompt",
                "GRAPE: the only response to its prompt",
                "GRAPE: another response to its prompt is more probable",
                f"GRAPE: the most probable of the responses to its prompt, but not {among}",
                f"GRAPE: the only response to its prompt, but not {among}",
            ),
            token_keep=all_tokens(signals),
            thresholds={"grape": float(values[keep].min())} if count else {},
            warnings=()
            if several.any() or not len(values)
            else ("grape: no prompt has more than one response, so that there was nothing to choose from",),
        )


def _prompts(signals: Signals) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The hash of each sample's prompt, (N,). Raises ValueError when it was not measured."""
    sample_column(signals, "prompt")
    return np.asarray(signals.samples["prompt"], dtype=np.int64)
