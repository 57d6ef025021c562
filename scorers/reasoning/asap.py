"""What the steps of a chain of thought score by the surprisal of their tokens; those of lowest score go
first.

ASAP's fine stage (arXiv 2508.05988) scores a step by its first token alone,
`S(s_k) = -ln p(first token of s_k | question, opening of the reasoning, s_1 .. s_{k-1})`, all steps in one
forward pass over the whole chain: choices are made where a step begins.

ASLEC-DROP (arXiv 2604.06834) leaves just that token out: a mean of log-probabilities without each step's
first token does not favour long steps, in which that improbable token weighs less. Its authors score whole
responses so, and select those of the highest mean, which are the most natural. Steps take the place of
responses here, with their sign: `S(s_k) = mean of ln p over the later tokens of s_k`, so that the least
natural steps go first. This is the opposite of ASAP's sign, and nobody has published it for steps:
`benchmarks.asap` measures it both ways.

Notable choices:
- a step's first token is the one that covers its first visible character, found by the offsets of the very
  sequence that was scored; indentation says nothing of a step. Where a tokenizer lets one token hold the end
  of a step and the beginning of the next, both have the token's surprisal;
- a token belongs to the step in which it begins, if it covers something visible of it at all;
- a step of one token has no later ones, and is scored by that token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scorers.reasoning.steps import Span
from scorers.signals.columns import Floats, Ints


@dataclass(frozen=True, slots=True)
class StepTokens:
    """K steps as the model saw them. first: (K,) index of the token that opens each step, -1 where it was not
    scored. stop: (K,) index behind the last token that begins in it."""

    first: Ints
    stop: Ints


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
    offset = int(within[0]) if len(within) else 0
    stops = np.array([stop for _, stop in steps], dtype=np.int64)
    return StepTokens(first, np.searchsorted(starts, stops, side="left") + offset)


def _indent(step: str) -> int:
    return len(step) - len(step.lstrip())


def first_token(tokens: StepTokens, nll: NDArray[np.floating]) -> Floats:
    """ASAP's score of each step, (K,) nats. nll: (T,) of the sequence; every step was located in it."""
    return nll[tokens.first].astype(np.float64)


def later_tokens(tokens: StepTokens, nll: NDArray[np.floating]) -> Floats:
    """ASLEC-DROP's score of each step, (K,) nats, at most 0. nll as for `first_token`."""
    summed = np.concatenate([[0.0], np.cumsum(nll, dtype=np.float64)])
    stop = np.maximum(tokens.stop, tokens.first + 1)
    count = stop - tokens.first - 1
    later = (summed[stop] - summed[tokens.first + 1]) / np.maximum(count, 1)
    return -np.where(count > 0, later, nll[tokens.first])
