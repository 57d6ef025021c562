"""ASAP over a row: the steps of its reasoning, how surprising each is, and what is left of them
(arXiv 2508.05988; the formulas are in `scorers.reasoning.asap`).

This is the fine stage alone, the paper's row without the anchor-guided coarse stage: it needs no teacher, and
where the reasoning is in the response, no further pass of the proxy model either. The authors score with a
reasoning model of 7 billion parameters; `datapruner.rewriting.proxies` says what a smaller one does instead.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from datapruner.rewriting.outcomes import Rewritten
from datapruner.rewriting.reasoning import ReasoningRow
from datapruner.rewriting.rewriters import Counter, MeasuredReasoning
from datapruner.rewriting.shortening import Budget, Said, shorten
from scorers.reasoning.asap import first_token, later_tokens, locate
from scorers.reasoning.steps import split_steps
from scorers.signals.columns import Bools

TOO_LONG = "reasoning goes on past the longest sample measured: raise max_length, or use a longer proxy model"


class AsapOptions(Budget):
    """ASAP's budget, and what a step is scored by."""

    score: Literal["first-token", "later-tokens"] = Field(
        "first-token",
        description="what steps are scored by, the lowest to go first: the surprisal of the first token "
        "(ASAP), or the mean log-probability of the others (ASLEC-DROP, arXiv 2604.06834)",
    )

    def rewriter(self, count: Counter) -> Asap:
        return Asap(self, count)


class Asap:
    """Removes the steps of the lowest score until the reasoning fits the budget.

    count: tokens of a text, of the proxy model's.
    """

    def __init__(self, options: AsapOptions, count: Counter) -> None:
        self.options = options
        self._count = count

    def rewrite(self, row: ReasoningRow, measured: MeasuredReasoning) -> Rewritten:
        """The outcome of one row: rewritten, original or, where its end was not measured, error."""
        spans = split_steps(row.reasoning)
        tokens = locate(row.reasoning, spans, measured.start, measured.end)
        cut = measured.n_truncated > 0 and measured.end.max(initial=0) < len(row.reasoning)
        if cut or (tokens.first < 0).any():
            return Rewritten("error", None, TOO_LONG)
        first = self.options.score == "first-token"
        scores = (first_token if first else later_tokens)(tokens, measured.nll)
        order = np.argsort(scores, kind="stable")

        def said(keep: Bools) -> Said:
            at = f"{scores[~keep].max():.3g} nats"
            what = "surprising" if first else "probable"
            return Said(
                f"least {what} steps removed",
                f"as {what} as {at} or more",
                f"among the least {what}, up to {at}",
            )

        return shorten(row, spans, order, self.options, self._count, said, scores)
