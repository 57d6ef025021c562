"""Controls for whatever removes steps: any steps, or the longest ones, to the same budget.

Neither reads the proxy model, but for its tokens, so they cost next to nothing. What does not beat them does
not pay: entropy of steps, for one, was found no better than random steps (arXiv 2607.28707).

Notable choice: the order of a row's steps is drawn from the seed and the row's own content, so that no other
row changes it.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from datapruner.rewriting.outcomes import Rewritten
from datapruner.rewriting.reasoning import ReasoningRow
from datapruner.rewriting.rewriters import Counter
from datapruner.rewriting.shortening import Budget, Said, shorten
from scorers.reasoning.steps import split_steps

RANDOM = Said("steps removed at random", "drawn to stay", "drawn to go")
LONGEST = Said("longest steps removed", "shorter than those that went", "among the longest")


class LongestStepsOptions(Budget):
    """The budget."""

    def rewriter(self, count: Counter) -> LongestSteps:
        return LongestSteps(self, count)


class RandomStepsOptions(Budget):
    """The budget, and the seed."""

    seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of the draw")

    def rewriter(self, count: Counter) -> RandomSteps:
        return RandomSteps(self, count)


class RandomSteps:
    """Removes steps in a random order until the reasoning fits the budget."""

    def __init__(self, options: RandomStepsOptions, count: Counter) -> None:
        self._options = options
        self._count = count

    def rewrite(self, row: ReasoningRow) -> Rewritten:
        """The outcome of one row: rewritten or original."""
        spans = split_steps(row.reasoning)
        own = np.frombuffer(bytes.fromhex(row.sample_id), dtype=np.uint32)
        order = np.random.default_rng([self._options.seed, *own.tolist()]).permutation(len(spans))
        return shorten(row, spans, order, self._options, self._count, lambda _: RANDOM)


class LongestSteps:
    """Removes the steps of the most tokens until the reasoning fits the budget."""

    def __init__(self, options: LongestStepsOptions, count: Counter) -> None:
        self._options = options
        self._count = count

    def rewrite(self, row: ReasoningRow) -> Rewritten:
        """The outcome of one row: rewritten or original."""
        spans = split_steps(row.reasoning)
        sizes = np.array([self._count(row.reasoning[start:end]) for start, end in spans])
        order = np.argsort(-sizes, kind="stable")
        return shorten(row, spans, order, self._options, self._count, lambda _: LONGEST)
