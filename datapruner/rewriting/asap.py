"""ASAP over a row: the steps of its reasoning, their first-token surprisal, and what is left of them
(arXiv 2508.05988; the formula is in `scorers.reasoning.asap`).

This is the fine stage alone, the paper's row without the anchor-guided coarse stage: it needs no teacher, and
where the reasoning is in the response, no further pass of the proxy model either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from datapruner.rewriting import tables
from datapruner.rewriting.outcomes import Rewritten, Step
from datapruner.rewriting.reasoning import ReasoningRow
from datapruner.rewriting.rewriters import Counter, MeasuredReasoning, Settings
from scorers.reasoning.asap import StepTokens, keep_steps, locate
from scorers.reasoning.steps import Span, removed_spans, split_steps, without
from scorers.shares import tolerant_floor
from scorers.signals.columns import Bools, Floats

PUBLISHED_MAX_TOKENS = 4096
TOO_LONG = "reasoning goes on past the longest sample measured: raise max_length, or use a longer proxy model"
WITHIN = "within the budget"
SINGLE = "a single step, longer than the budget"
REMOVED = "least surprising steps removed"
LAST = "one step left, longer than the budget"


class AsapOptions(Settings):
    """The budget: what of the reasoning may stay. With both, the smaller; with neither, the paper's 4,096
    tokens (the example in its code has 1,024)."""

    max_tokens: int | None = Field(
        None, ge=1, le=2**31 - 1, description="proxy tokens that the reasoning may have"
    )
    max_token_ratio: float | None = Field(
        None, gt=0, le=1, description="share of the reasoning's tokens that may stay"
    )

    @model_validator(mode="after")
    def _published(self) -> Self:
        if self.max_tokens is None and self.max_token_ratio is None:
            return self.model_copy(update={"max_tokens": PUBLISHED_MAX_TOKENS})
        return self

    def budget(self, tokens: int) -> int:
        """Tokens that may stay of `tokens`."""
        limits = [tokens if self.max_tokens is None else self.max_tokens]
        if self.max_token_ratio is not None:
            limits.append(tolerant_floor(self.max_token_ratio * tokens))
        return min(limits)

    def rewriter(self, count: Counter) -> Asap:
        return Asap(self, count)


class Asap:
    """Removes the steps of lowest first-token surprisal until the reasoning fits the budget.

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
        surprisal = measured.nll[tokens.first].astype(np.float64)
        keep = np.ones(len(spans), dtype=np.bool_)
        before = self._count(row.reasoning)
        budget = self.options.budget(before)
        if before <= budget or len(spans) == 1:
            reason = WITHIN if before <= budget else SINGLE
            text, steps = row.response(row.reasoning), _steps(spans, surprisal, keep, kept=reason)
            return Rewritten("original", text, reason, steps=steps, tokens_before=before, tokens_after=before)
        keep, left, after = self._fit(row.reasoning, spans, surprisal, tokens, budget)
        removed = removed_spans(spans, keep.tolist())
        cut_at = f"{surprisal[~keep].max():.3g} nats"
        return Rewritten(
            "rewritten",
            row.response(left),
            REMOVED if after <= budget else LAST,
            removed=tuple(removed),
            steps=_steps(
                spans,
                surprisal,
                keep,
                kept=f"as surprising as {cut_at} or more",
                removed=f"among the least surprising, up to {cut_at}",
            ),
            tokens_before=before,
            tokens_after=after,
        )

    def _fit(
        self, reasoning: str, spans: Sequence[Span], surprisal: Floats, tokens: StepTokens, budget: int
    ) -> tuple[Bools, str, int]:
        """Which steps to keep, their text, and its tokens: the fewest removals that fit, but for one step.

        The tokens that were scored tell how many removals that takes, give or take one: whitespace at a joint
        may be tokenised otherwise. So the text is counted until it is certain.
        """
        order = np.argsort(surprisal, kind="stable")

        def without_first(count: int) -> tuple[Bools, str, int]:
            keep = np.ones(len(spans), dtype=np.bool_)
            keep[order[:count]] = False
            left = without(reasoning, removed_spans(spans, keep.tolist()))
            return keep, left, self._count(left)

        count = int((~keep_steps(surprisal, tokens.inside, tokens.gap, budget)).sum())
        fit = without_first(count)
        while fit[2] > budget and count < len(spans) - 1:
            count += 1
            fit = without_first(count)
        while count > 0 and (more := without_first(count - 1))[2] <= budget:
            count -= 1
            fit = more
        return fit


def _steps(
    spans: Sequence[Span], surprisal: Floats, keep: Bools, kept: str, removed: str = ""
) -> tuple[Step, ...]:
    return tuple(
        Step(start, end, value, stays, kept if stays else removed)
        for (start, end), value, stays in zip(spans, surprisal.tolist(), keep.tolist(), strict=True)
    )


def over_budget(database: Path) -> Iterator[str]:
    """A warning, if there is one to give, of the rows in a table `rewrites` that do not fit their budget."""
    [found] = tables.read(
        database,
        "SELECT count(*) FILTER (reason IN (?, ?)) AS over, count(tokens_before) AS rows FROM rewrites "
        "WHERE text IS NOT NULL",
        [SINGLE, LAST],
    ).to_pylist()
    if found["over"]:
        yield (
            f"asap: {found['over']:,} of {found['rows']:,} rows with reasoning stay longer than the budget: "
            "it removes whole steps, and never the last one"
        )
