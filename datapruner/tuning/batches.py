"""The steps of a training, and what is passed through the model at once.

Notable choices:
- a training is cut into a given number of steps of about equally many trained tokens each, so that all that
  train on equally many tokens take equally many steps of equal size, however long their rows are;
- the rows of a step are sorted by length and cut into passes where that is cheapest: a pass costs its padded
  tokens, and something for being one more. Neither one long row nor many short ones are paid for by others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datapruner.tuning.examples import Examples, Ints
from scorers.signals.transfer import onto


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a pass may hold: padded tokens, and what one more costs, in tokens."""

    budget: int
    another: int

    @classmethod
    def on(cls, device: torch.device, budget: int | None = None) -> Sizes:
        """Those that suit a device: starting a pass takes a GPU as long as thousands of tokens do."""
        if device.type == "cpu":
            return cls(budget or 1024, 16)
        return cls(budget or 32_768, 2048)


@dataclass(frozen=True, slots=True)
class Batch:
    """B rows padded on the right to L tokens. `where`: the (row, position) that predicts each of the R tokens
    that count, `targets` what they are, `row_of` the example that they are of, `weights` the factors of their
    loss where there are any, all (R,)."""

    input_ids: Tensor
    where: tuple[Tensor, Tensor]
    targets: Tensor
    row_of: Ints
    weights: Tensor | None = None

    @property
    def size(self) -> int:
        """Tokens passed through the model, padding included."""
        return self.input_ids.numel()


def steps(counted: Ints, order: Ints, number: int) -> list[Ints]:
    """The rows in `order` cut into at most `number` steps of about equally many tokens that count.

    counted: of every row. A row is of the step in which the middle of its tokens falls; a step that none
    falls into is left out.
    """
    sizes = counted[order]
    middle = np.cumsum(sizes) - sizes / 2
    step = np.minimum((middle * number / sizes.sum()).astype(np.int64), number - 1)
    return np.split(order, np.flatnonzero(np.diff(step)) + 1)


def passes(lengths: Ints, rows: Ints, sizes: Sizes) -> list[Ints]:
    """The rows by length, the longest first, cut into passes at the least cost.

    No pass is over the budget unless it is of one row. lengths: of every row.
    """
    rows = rows[np.lexsort((rows, -lengths[rows]))]
    count = len(rows)
    long = lengths[rows]
    best = np.full(count + 1, np.inf)
    best[0], cut = 0.0, np.zeros(count + 1, dtype=np.int64)
    for start in range(count):
        most = max(1, sizes.budget // int(long[start]))
        ends = np.arange(start + 1, min(start + most, count) + 1)
        cost = best[start] + sizes.another + (ends - start) * int(long[start])
        better = cost < best[ends]
        best[ends[better]], cut[ends[better]] = cost[better], start
    found, end = [], count
    while end:
        found.append(rows[cut[end] : end])
        end = int(cut[end])
    return found[::-1]


def batches(examples: Examples, rows: Ints, sizes: Sizes, device: torch.device) -> Iterator[Batch]:
    """The rows in passes, on the device. Nothing waits for it: it is given the next while it has the last."""
    for some in passes(examples.lengths, rows, sizes):
        found = [examples.row(row) for row in some.tolist()]
        ids = np.zeros((len(found), max(len(tokens) for tokens, _ in found)), dtype=np.int64)
        for line, (tokens, _) in zip(ids, found, strict=True):
            line[: len(tokens)] = tokens
        count = [len(positions) for _, positions in found]
        line_of = np.repeat(np.arange(len(found)), count)
        positions = np.concatenate([positions for _, positions in found])
        scale = [examples.weights_of(row) for row in some.tolist()]
        weights = [each for each in scale if each is not None]
        yield Batch(
            input_ids=onto(ids, device),
            where=(onto(line_of, device), onto(positions - 1, device)),
            targets=onto(ids[line_of, positions], device),
            row_of=np.repeat(some, count),
            weights=onto(np.concatenate(weights), device) if weights else None,
        )
