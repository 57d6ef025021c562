"""ASAP's fine stage: remove the steps of a chain of thought whose first token was least surprising
(arXiv 2508.05988).

`S(s_k) = -ln p(first token of s_k | question, opening of the reasoning, s_1 .. s_{k-1})`, all steps scored in
one forward pass over the whole chain; steps go in ascending S until what is left fits the budget. The order
stays and the answer is not touched.

Notable choices:
- a step's first token is the one that covers its first visible character, found by the offsets of the very
  sequence that was scored; indentation says nothing of a step. Where a tokenizer lets one token hold the end
  of a step and the beginning of the next, both have the token's surprisal;
- tokens are counted on that sequence too (what is left, tokenised anew, may differ by a few tokens of
  whitespace at the joints). A token belongs to the step in which it begins, or to the gap
  behind it; the gap after the last step kept does not count, as it goes;
- of steps equally surprising the earlier goes first;
- the most surprising step stays even if it alone is over the budget (the paper is silent): reasoning that
  is opened and closed again teaches not to reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scorers.reasoning.steps import Span
from scorers.signals.columns import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class StepTokens:
    """K steps as the model saw them. first: (K,) index of the token that opens each step, -1 where it was not
    scored. inside, gap: (K,) tokens that begin in the step, and in the gap behind it."""

    first: Ints
    inside: Ints
    gap: Ints


def locate(
    text: str, steps: Sequence[Span], start: NDArray[np.integer], end: NDArray[np.integer]
) -> StepTokens:
    """Find the steps among the tokens of a sequence that holds `text`.

    start, end: (T,) characters [start, end) of `text` that each token covers, ascending; a token outside of
    `text` covers none of it (end at most 0, or start at its length or beyond).
    """
    size = len(text)
    visible = np.array([begin + _indent(text[begin:stop]) for begin, stop in steps], dtype=np.int64)
    within = np.flatnonzero((start < size) & (end > 0))
    starts = np.asarray(start, dtype=np.int64)[within]
    ends = np.asarray(end, dtype=np.int64)[within]
    at = np.searchsorted(ends, visible, side="right")  # the first token that ends beyond the character
    found = at < len(ends)
    found[found] &= starts[at[found]] <= visible[found]
    first = np.full(len(steps), -1, dtype=np.int64)
    first[found] = within[at[found]]
    begins = np.array([begin for begin, _ in steps], dtype=np.int64)
    stops = np.array([stop for _, stop in steps], dtype=np.int64)
    edges = np.searchsorted(starts, np.stack([begins, stops, np.append(begins[1:], size)]), side="left")
    return StepTokens(first, edges[1] - edges[0], edges[2] - edges[1])


def _indent(step: str) -> int:
    return len(step) - len(step.lstrip())


def keep_steps(surprisal: Floats, inside: Ints, gap: Ints, budget: int) -> Bools:
    """Mask (K,) of the steps to keep: those of lowest surprisal go until at most `budget` tokens are left.

    surprisal: (K,), nats. inside, gap: (K,) tokens, as in `StepTokens`. At least one step is kept.
    Raises ValueError for a surprisal that is NaN.
    """
    if np.isnan(surprisal).any():
        raise ValueError(f"step {int(np.argmax(np.isnan(surprisal)))} has no surprisal")
    order = np.argsort(surprisal, kind="stable")
    return remove_in_order(order, inside, gap, budget)


def remove_in_order(order: NDArray[np.intp], inside: Ints, gap: Ints, budget: int) -> Bools:
    """Mask (K,) of the steps left once steps were removed in this order until they fit the budget.

    order: (K,) all steps, the first to go first. The last one stays whatever its size.
    """
    keep = np.ones(len(order), dtype=np.bool_)
    left = int((inside + gap).sum())
    last = len(order) - 1
    for step in order[:-1]:
        if left - int(gap[last]) <= budget:
            break
        keep[step] = False
        left -= int(inside[step] + gap[step])
        while not keep[last]:
            last -= 1
    return keep
