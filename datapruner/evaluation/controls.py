"""Which rows each arm may train on, and which of them a training does.

An arm is a set of rows, at the trained tokens of the whole evaluation (`plan.Amounts.whole`). A training
takes all of it or, where time is short, rows of it drawn by the seed, so that a shorter evaluation is about
the same sets of rows. Budgets are met within one row.

    a run     what it kept, with its token masks
    random    rows of the whole corpus, drawn anew for each seed
    longest   the rows with the most response tokens
    all       every row: as many steps as the others take, each of as many more tokens
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from datapruner.tuning.examples import Ints

RANDOM, LONGEST, ALL = CONTROLS = ("random", "longest", "all")


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The N rows of an arm. sample_ids: N of them. counted: of each, the tokens that would be trained, (N,).
    lengths: of each, all its tokens, (N,)."""

    sample_ids: pl.Series
    counted: Ints
    lengths: Ints

    def some(self, rows: Ints) -> Candidates:
        """These of the rows."""
        return Candidates(self.sample_ids[rows], self.counted[rows], self.lengths[rows])

    @property
    def total(self) -> int:
        """Tokens that would be trained, of all rows."""
        return int(self.counted.sum())

    def draw(self, budget: int, seed: int) -> Candidates:
        """Rows drawn by the seed until their trained tokens come nearest to the budget, in order."""
        order = np.random.default_rng([seed, len(self.counted)]).permutation(len(self.counted))
        return self.some(np.sort(within(self.counted, order, budget)))

    def longest(self, budget: int) -> Candidates:
        """The rows with the most trained tokens, up to the budget."""
        order = np.argsort(-self.counted, kind="stable")
        return self.some(np.sort(within(self.counted, order, budget)))


def within(counted: Ints, order: Ints, budget: int) -> Ints:
    """The first rows of `order`, at least one, whose tokens come nearest to the budget."""
    total = np.cumsum(counted[order])
    number = int(np.argmin(np.abs(total - budget))) + 1
    return order[:number]
