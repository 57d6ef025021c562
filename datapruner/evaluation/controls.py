"""Which rows each arm may train on, and which of them a training does.

An arm is a set of rows, at the trained tokens of the whole evaluation (`plan.Amounts.whole`). A training
takes all of it or, where time is short, rows of it drawn by the seed, so that a shorter evaluation is about
the same sets of rows. Budgets are met within one row.

    a run            what it kept, with its token masks and weights
    random-tokens    the same rows, with as many tokens of each and the same weights, drawn anew for each
                     seed; of runs that mask or weight tokens
    random           rows of the whole corpus, drawn anew for each seed
    longest          the rows with the most response tokens
    all              every row: as many steps as the others take, each of as many more tokens
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from datapruner.schemas.evaluations import RANDOM, RANDOM_TOKENS
from datapruner.tuning.examples import Bools, Ints, Weights

LONGEST, ALL = "longest", "all"
CONTROLS = (RANDOM, RANDOM_TOKENS, LONGEST, ALL)


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


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """What is trained on of a row: positions of tokens, (n,) ascending, and their weights, (n,), if any."""

    positions: NDArray[np.integer]
    weights: Weights | None = None

    def redrawn(self, response: NDArray[np.integer], ends: Bools, generator: np.random.Generator) -> Mask:
        """As many tokens drawn from those of the response, at the positions `response`, (R,), and the weights
        dealt out anew among them.

        `ends`, (R,): which of them close a turn. These are as in this mask, with their own weights, so that
        what differs is not whether a model learns to stop.
        """
        fixed = np.isin(self.positions, response[ends])
        free = response[~ends]
        drawn = generator.choice(free, int((~fixed).sum()), replace=False)
        positions = np.concatenate([self.positions[fixed], drawn])
        order = np.argsort(positions)
        if self.weights is None:
            return Mask(positions[order])
        weights = np.concatenate([self.weights[fixed], generator.permutation(self.weights[~fixed])])
        return Mask(positions[order], weights[order])


def within(counted: Ints, order: Ints, budget: int) -> Ints:
    """The first rows of `order`, at least one, whose tokens come nearest to the budget."""
    total = np.cumsum(counted[order])
    number = int(np.argmin(np.abs(total - budget))) + 1
    return order[:number]
