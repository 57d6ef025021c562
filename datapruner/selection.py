"""Scores and masks from signals: the cheap half of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from datapruner.config import Keep, MethodChoice, find
from datapruner.errors import UsageError
from scorers.method import Columns, Method, Selection
from scorers.signals import Ints, Signals


@dataclass(frozen=True, slots=True)
class Scored:
    """What the chosen methods say of N measured samples (M response tokens)."""

    samples: Columns
    tokens: Columns
    selection: Selection | None


def needs(methods: list[MethodChoice]) -> frozenset[str]:
    """Signals that these methods read."""
    return frozenset().union(*(find(choice.name).needs(choice.parsed()) for choice in methods))


def score(signals: Signals, methods: list[MethodChoice], keep: Keep | None, seed: int) -> Scored:
    """Run every method over the signals; with `keep`, let the (only) method select.

    Raises UsageError when `keep` asks for more than there is.
    """
    samples: Columns = {}
    tokens: Columns = {}
    selection: Selection | None = None
    for choice in methods:
        method, options = find(choice.name), choice.parsed()
        scores = method.scores(signals, options, seed)
        samples |= scores
        tokens |= method.token_scores(signals, options)
        if keep is not None:
            selection = _select(signals, method, scores, keep, options, seed)
            samples |= selection.columns
    return Scored(samples, tokens, selection)


def _select(
    signals: Signals, method: Method[Any], scores: Columns, keep: Keep, options: Any, seed: int
) -> Selection:
    n = len(signals)
    if keep.share is not None:
        return method.select(signals, scores, keep.share, options, seed)
    if keep.count is not None:
        if keep.count > n:
            raise UsageError(
                f"asked to keep {keep.count} samples, but only {n} were measured",
                remedy="keep fewer, or a share",
            )
        return method.select(signals, scores, keep.count / n, options, seed)
    assert keep.tokens is not None
    return _within_tokens(signals, method, scores, keep.tokens, options, seed)


def _within_tokens(
    signals: Signals, method: Method[Any], scores: Columns, budget: int, options: Any, seed: int
) -> Selection:
    """The largest selection of the method's whose kept response tokens fit the budget, found by bisection."""
    n = len(signals)
    best: Selection | None = None
    low, high = 1, n
    while low <= high:
        count = (low + high) // 2
        selection = method.select(signals, scores, count / n, options, seed)
        if int(kept_tokens(signals, selection).sum()) <= budget:
            best, low = selection, count + 1
        else:
            high = count - 1
    if best is None:
        raise UsageError(
            f"a budget of {budget} tokens does not hold even the one sample that {method.name} puts first",
            remedy="raise the token budget or keep a count of samples",
        )
    return best


def kept_tokens(signals: Signals, selection: Selection) -> Ints:
    """Trained tokens that each sample contributes, (N,): 0 for pruned samples."""
    totals = np.concatenate([[0], np.cumsum(selection.token_keep, dtype=np.int64)])
    per_sample: Ints = totals[signals.offsets[1:]] - totals[signals.offsets[:-1]]
    return np.where(selection.keep, per_sample, 0)
