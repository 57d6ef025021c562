"""How much of everything an evaluation does: all there is or, where time is short, what time is there for.

Wall time decides the plan, where an evaluation stops, and nothing else: the plan is stored before the first
training, and who goes on with an evaluation goes on with its plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

_LEAST_TOKENS = 128
_TOKENS_A_STEP, _LEAST_STEPS, _LEAST_TOKENS_A_STEP = 8192, 16, 64
_LEAST_ROWS = 8
READING = 0.4  # of the time that it takes to train on a token, a pass without a way back
_USED = 0.75  # of the time that is left, for what takes longer than it did at first


@dataclass(frozen=True, slots=True)
class Plan:
    """trained_tokens: of each training. steps: of each. rows: of each held-out set that are read.
    answered: the sets for which answers are written. rates: learning rates that are tried.
    seconds_a_token: of input, in a training."""

    trained_tokens: int
    steps: int
    rows: dict[str, int]
    answered: list[str]
    rates: list[float]
    seconds_a_token: float


@dataclass(frozen=True, slots=True)
class Amounts:
    """What a plan is made of.

    whole: trained tokens of a training without any limit. inputs: of each arm, its tokens for each trained
    one. sets: of each held-out set, its rows and the tokens of all of them. writing: of the sets with
    answers, how many tokens of training a row takes as long as. seeds: how many. rates: those to try, all of
    them on one seed of the control.
    """

    whole: int
    inputs: Mapping[str, float]
    sets: Mapping[str, tuple[int, int]]
    writing: Mapping[str, int]
    seeds: int
    rates: Sequence[float]


def plan(amounts: Amounts, seconds: float | None, seconds_a_token: float) -> Plan:
    """The largest of a ladder of plans, each of twice the tokens of the one below, that fits into `seconds`;
    answers are written where there is time for that too. None: all there is.

    Where not even the least fits, it tries no learning rate but the middle one: what time there is goes to
    training on random rows and on the subset.
    """
    budgets = [amounts.whole]
    while seconds is not None and budgets[-1] > 2 * _LEAST_TOKENS:
        budgets.append(_rung(budgets[-1]))
    for budget in budgets:
        rows = _rows(amounts, None if seconds is None else budget)
        for answered in dict.fromkeys((tuple(amounts.writing), ())):
            found = Plan(budget, steps_of(budget), rows, list(answered), list(amounts.rates), seconds_a_token)
            if seconds is None or _seconds(amounts, found) <= _USED * seconds:
                return found
    return replace(found, rates=sorted(amounts.rates)[len(amounts.rates) // 2 :][:1])


def steps_of(trained_tokens: int) -> int:
    """The optimiser's steps of a training on so many tokens."""
    most = max(1, round(trained_tokens / _LEAST_TOKENS_A_STEP))
    return min(most, max(_LEAST_STEPS, round(trained_tokens / _TOKENS_A_STEP)))


def _rung(budget: int) -> int:
    """The power of two times the least that is next below."""
    return int(_LEAST_TOKENS * 2 ** (np.ceil(np.log2(budget / _LEAST_TOKENS)) - 1))


def _rows(amounts: Amounts, budget: int | None) -> dict[str, int]:
    """Rows of each set: all, or as many as take, in all sets together, no more tokens than a training."""
    if budget is None:
        return {name: rows for name, (rows, _) in amounts.sets.items()}
    each = budget * max(amounts.inputs.values()) / len(amounts.sets)
    return {
        name: min(rows, max(_LEAST_ROWS, int(each / max(tokens / rows, 1))))
        for name, (rows, tokens) in amounts.sets.items()
    }


def _seconds(amounts: Amounts, found: Plan) -> float:
    reading = READING * sum(tokens / rows * found.rows[name] for name, (rows, tokens) in amounts.sets.items())
    reading += sum(amounts.writing[name] * found.rows[name] for name in found.answered)
    inputs = [found.trained_tokens * each for each in amounts.inputs.values()]
    tried = (len(amounts.rates) - 1) * (found.trained_tokens * amounts.inputs["random"] + reading)
    trainings = amounts.seeds * (sum(inputs) + len(inputs) * reading)
    return (trainings + tried) * found.seconds_a_token
