"""Scoring and training on what is kept, against training on everything.

A model of P parameters takes about 2 P operations to read a token, and 6 P to train on it or to be
differentiated (`datapruner.evaluation.cost`). With all the passes' operations S, a model of M parameters that
is trained for E epochs, and A and K the tokens that all rows and the kept ones have,

    share = (S + 6 M E K) / (6 M E A)        break-even M = S / (6 E (A - K)).

Where it is known how many tokens a second the training takes, r, both sides are seconds: the passes' own, and
E A / r against E K / r.
"""

from __future__ import annotations

import re

from datapruner.errors import UsageError
from datapruner.evaluation.cost import FORWARD_AND_BACKWARD, size
from datapruner.schemas.plans import BreakEven

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kKmMbBtT]?)")
_HOUR = 3600
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def parse_size(given: str) -> int:
    """Parameters of a model: 7B, 135M or 7000000000. Raises UsageError."""
    found = _SIZE.fullmatch(given.strip())
    count = 0 if found is None else round(float(found[1]) * _UNITS[found[2].lower()])
    if not 1 <= count <= 10**15:
        raise UsageError(
            f"train_model_size: {given!r} is not a number of parameters",
            remedy="such as 7B, 1.5B or 135M",
            field="train_model_size",
        )
    return count


def by_operations(
    scoring: float, all_tokens: float, kept_tokens: float, *, parameters: int, epochs: float
) -> BreakEven:
    """The comparison by operations; `scoring` are those of all passes."""
    per_token = float(FORWARD_AND_BACKWARD) * parameters * epochs
    saved = all_tokens - kept_tokens
    even = scoring / (FORWARD_AND_BACKWARD * epochs * saved) if saved > 0 else None
    sides = (scoring, per_token * all_tokens, per_token * kept_tokens)
    parts = [f"{100 * side / sides[1]:.3g} %" if sides[1] else "nothing" for side in (sides[0], sides[2])]
    against = f"the work of training it on everything: {parts[0]} to score, {parts[1]} to train."
    said = _sentence(against, sides, parameters, epochs)
    if even is not None:
        larger = f"models of more than {size(even)} parameters" if even else "a model of any size"
        said += f" Selecting pays for {larger}."
    return BreakEven(
        trained_parameters=parameters,
        epochs=epochs,
        all_tokens=all_tokens,
        kept_tokens=kept_tokens,
        unit="FLOPs",
        scoring=scoring,
        training_on_all=sides[1],
        training_on_kept=sides[2],
        share=_share(*sides),
        break_even_parameters=even,
        pays=_share(*sides) < 1,
        said=said,
    )


def by_seconds(
    scoring: float, all_tokens: float, kept_tokens: float, *, rate: float, parameters: int, epochs: float
) -> BreakEven:
    """The comparison by seconds: of the passes, and of a training of `rate` tokens a second."""
    sides = (scoring, epochs * all_tokens / rate, epochs * kept_tokens / rate)
    took, on_all, on_kept = (
        f"{side:,.0f} s" if side < _HOUR else f"{side / _HOUR:,.1f} hours" for side in sides
    )
    against = f"the {on_all} of training it on everything: {took} to score, {on_kept} to train."
    return BreakEven(
        trained_parameters=parameters,
        epochs=epochs,
        all_tokens=all_tokens,
        kept_tokens=kept_tokens,
        unit="seconds",
        scoring=scoring,
        training_on_all=sides[1],
        training_on_kept=sides[2],
        share=_share(*sides),
        pays=_share(*sides) < 1,
        said=_sentence(against, sides, parameters, epochs),
    )


def _share(scoring: float, on_all: float, on_kept: float) -> float:
    return (scoring + on_kept) / on_all if on_all else 1.0


def _sentence(against: str, sides: tuple[float, float, float], parameters: int, epochs: float) -> str:
    times = "one epoch" if epochs == 1 else f"{epochs:g} epochs"
    return (
        f"Scoring, and training a model of {size(parameters)} parameters for {times} on what is kept, takes "
        f"{100 * _share(*sides):.3g} % of {against} As many random rows save the same training and need no "
        "scoring."
    )
