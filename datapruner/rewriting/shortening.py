"""Reasoning made to fit a budget by leaving out whole steps, whatever says which go first.

Notable choices:
- tokens are counted on the text that is left, not on the one that was scored: whitespace at a joint may be
  tokenised otherwise;
- the budget is met from below, by the fewest steps that do; `scorers.reasoning.removal` says which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from datapruner.rewriting import tables
from datapruner.rewriting.outcomes import Rewritten, Step
from datapruner.rewriting.reasoning import ReasoningRow
from datapruner.rewriting.rewriters import Counter, Settings
from scorers.reasoning.coherence import needs
from scorers.reasoning.removal import Needs, removal_order
from scorers.reasoning.steps import Span, removed_spans, without
from scorers.shares import tolerant_floor
from scorers.signals.columns import Bools, Floats

PUBLISHED_MAX_TOKENS = 4096
WITHIN = "within the budget"
SINGLE = "a single step, longer than the budget"
TOGETHER = "steps that all need each other, longer than the budget"
LAST = "one step left, longer than the budget"
PASSED = "left for smaller steps: without it the budget would be missed by more"


class Budget(Settings):
    """What of the reasoning may stay. With both, the smaller; with neither, ASAP's 4,096 tokens (the example
    in its code has 1,024)."""

    max_tokens: int | None = Field(
        None, ge=1, le=2**31 - 1, description="proxy tokens that the reasoning may have"
    )
    max_token_ratio: float | None = Field(
        None, gt=0, le=1, description="share of the reasoning's tokens that may stay"
    )
    coherent: bool = Field(
        False, description="keep what a step that stays announces by a colon, or refers back to"
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


@dataclass(frozen=True, slots=True)
class Said:
    """A method's words. reason: of a row that was shortened. kept: why a step stayed that comes behind
    all those that went. removed: why one went."""

    reason: str
    kept: str
    removed: str


def shorten(
    row: ReasoningRow,
    spans: Sequence[Span],
    order: NDArray[np.intp],
    options: Budget,
    count: Counter,
    said: Callable[[Bools], Said],
    scores: Floats | None = None,
) -> Rewritten:
    """The row with the fewest steps left out, roughly in this order, that makes its reasoning fit the budget.

    spans: of its K steps. order: (K,) the first to go first. scores: (K,) nats, where steps have any. said:
    the words for which steps stay.
    """
    before = count(row.reasoning)
    budget = options.budget(before)
    if before <= budget:
        return _unchanged(row, spans, scores, WITHIN, budget, before)
    together = needs([row.reasoning[start:end] for start, end in spans]) if options.coherent else {}
    keep, left, after = _fit(row.reasoning, spans, order, budget, count, together)
    if keep.all():
        return _unchanged(row, spans, scores, SINGLE if len(spans) == 1 else TOGETHER, budget, before)
    words = said(keep)
    return Rewritten(
        "rewritten",
        row.response(left),
        words.reason if after <= budget else LAST,
        removed=tuple(removed_spans(spans, keep.tolist())),
        steps=_steps(spans, scores, keep, _whys(order, keep, together, words)),
        budget=budget,
        tokens_before=before,
        tokens_after=after,
    )


def _unchanged(
    row: ReasoningRow, spans: Sequence[Span], scores: Floats | None, reason: str, budget: int, tokens: int
) -> Rewritten:
    steps = _steps(spans, scores, np.ones(len(spans), dtype=np.bool_), [reason] * len(spans))
    return Rewritten(
        "original",
        row.response(row.reasoning),
        reason,
        steps=steps,
        budget=budget,
        tokens_before=tokens,
        tokens_after=tokens,
    )


def _fit(
    reasoning: str,
    spans: Sequence[Span],
    order: NDArray[np.intp],
    budget: int,
    count: Counter,
    together: Needs,
) -> tuple[Bools, str, int]:
    """Which steps to keep, their text, and its tokens.

    Steps are counted one by one, which tells how many have to go, give or take one; so the text is counted
    until it is certain.
    """
    ends = [start for start, _ in spans[1:]] + [spans[-1][1]]
    size = np.array([count(reasoning[start:end]) for (start, _), end in zip(spans, ends, strict=True)])
    groups = removal_order(order, size, budget, together)

    def without_first(number: int) -> tuple[Bools, str, int]:
        keep = np.ones(len(spans), dtype=np.bool_)
        keep[[step for group in groups[:number] for step in group]] = False
        left = without(reasoning, removed_spans(spans, keep.tolist()))
        return keep, left, count(left)

    sizes = np.array([int(size[group].sum()) for group in groups])
    number = int(np.searchsorted(np.cumsum(sizes), sizes.sum() - budget))
    number = min(number + 1, len(groups) - 1)
    fit = without_first(number)
    while fit[2] > budget and number < len(groups) - 1:
        number += 1
        fit = without_first(number)
    while number > 0 and (more := without_first(number - 1))[2] <= budget:
        number -= 1
        fit = more
    return fit


def _steps(
    spans: Sequence[Span], scores: Floats | None, keep: Bools, whys: Iterable[str]
) -> tuple[Step, ...]:
    values = [None] * len(spans) if scores is None else scores.tolist()
    return tuple(
        Step(start, end, value, stays, why)
        for (start, end), value, stays, why in zip(spans, values, keep.tolist(), whys, strict=True)
    )


def _whys(order: NDArray[np.intp], keep: Bools, together: Needs, said: Said) -> Iterator[str]:
    """Why each step stayed or went."""
    rank = np.argsort(order)
    last = rank[~keep].max()
    needers = {other: step for step, others in together.items() if keep[step] for other in others}
    for step, stays in enumerate(keep.tolist()):
        if not stays:
            yield said.removed
        elif step in needers:
            yield f"needed by step {needers[step] + 1}, which stays"
        else:
            yield said.kept if rank[step] > last else PASSED


def off_budget(database: Path, method: str) -> Iterator[str]:
    """A warning, if there is one to give, of the rows in a table `rewrites` that do not fit their budget."""
    [found] = tables.read(
        database,
        "SELECT count(*) FILTER (tokens_after > budget) AS over, count(budget) AS rows, "
        "coalesce(sum(greatest(tokens_after - budget, 0)), 0)::BIGINT AS tokens FROM rewrites "
        "WHERE text IS NOT NULL",
    ).to_pylist()
    if found["over"]:
        yield (
            f"{method}: {found['over']:,} of {found['rows']:,} rows with reasoning stay longer than the "
            f"budget, by {found['tokens']:,} tokens in all: it removes whole steps, and never the last one"
        )
