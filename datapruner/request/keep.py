"""How much to keep: a share of the samples, a count of them, or a budget of trained tokens.

The one reading of it, whatever the door: command line, Python, form, JSON, recipe, schedule.

    0.25    25%    share=0.25    {"share": 0.25}    a share
    500            count=500     {"count": 500}     a count of samples
                   tokens=90000  {"tokens": 90000}  a budget of trained tokens

Notable choices:
- a number written with a point, an exponent or a per cent sign is a share, and one without is a count; so
  `1.0` and `100%` are everything;
- a plain `1` is refused. It would be one sample, and is nearly always meant as everything; in JSON it may
  have been 1.0 before a program wrote it down. By name both are possible: `count=1`, `share=1`;
- a share is of the samples that were measured, so rejected rows, exact duplicates and what a recipe drops
  before do not count; it rounds up, and is at least one sample.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from datapruner.errors import UsageError
from datapruner.request.parts import LARGEST, Part
from datapruner.validation import shown

HELP = "a share over 0 and at most 1, as in 0.25 or 25%, or a count of samples, as in 500"
_ROUNDED = "a share is of the measured samples and rounds up"
_AMBIGUOUS = 'one: count=1, or {"count": 1} in JSON and recipes; all: 100% or 1.0, or {"share": 1}'
_NAMED = re.compile(r"\s*(\w+)\s*=(.*)", re.DOTALL)
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")
_DECIMAL = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*(%?)")


class Keep(Part):
    """How much to keep: one of a share of the samples, a count of them, a budget of trained tokens."""

    share: float | None = Field(None, gt=0, le=1)
    count: int | None = Field(None, ge=1, le=LARGEST)
    tokens: int | None = Field(None, ge=1, le=LARGEST)

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in (self.share, self.count, self.tokens)) != 1:
            raise ValueError("give exactly one of a share, a count and a token budget to keep")
        return self

    def plain(self) -> float | int | dict[str, float | int]:
        """The shortest JSON value that `parse_keep` reads as this."""
        [(name, amount)] = self.model_dump(exclude_none=True).items()
        return {name: amount} if name == "tokens" or amount == 1 else amount


def parse_keep(given: Any = None, *, tokens: int | None = None) -> Keep:
    """How much `given` is: a number, a text, or what has the names of `Keep`; `tokens`: that budget instead.

    Raises UsageError for what is none of these, for what is out of range, and for a plain 1.
    """
    if tokens is not None:
        if given is not None:
            raise UsageError(
                "keep: a share or count, or a token budget, not both", remedy="give one", field="keep"
            )
        given = {"tokens": tokens}
    if isinstance(given, Keep):
        return given
    name, amount = _named(given)
    fits = {
        "share": isinstance(amount, int | float) and 0 < amount <= 1,
        "count": isinstance(amount, int) and 1 <= amount <= LARGEST,
        "tokens": isinstance(amount, int) and 1 <= amount <= LARGEST,
    }
    if name == "tokens" and not fits["tokens"]:
        raise UsageError(
            f"keep: a token budget is a whole number from 1 on, not {shown(given)}",
            remedy="such as 200000",
            field="keep",
        )
    if not fits.get(name):
        raise _refused(given)
    return Keep.model_validate({name: amount})


def _named(given: Any) -> tuple[str, Any]:
    """What kind of amount, and which. Raises UsageError."""
    if isinstance(given, str) and given.lstrip().startswith("{"):  # JSON in a field that holds text
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            raise _refused(given) from None
    if isinstance(given, str) and (found := _NAMED.fullmatch(given)):
        given = {found[1]: found[2]}
    if isinstance(given, Mapping):
        named = {name: amount for name, amount in given.items() if amount is not None}
        if len(named) != 1 or not named.keys() <= Keep.model_fields.keys():
            raise UsageError(
                f"keep: by name, one of share, count and tokens, not {', '.join(map(repr, named)):.80}",
                remedy='such as {"share": 0.25} or {"count": 500}',
                field="keep",
            )
        [(name, amount)] = named.items()
        return name, _number(amount)
    amount = _number(given)
    if amount == 1 and isinstance(amount, int):
        raise UsageError("keep: 1 may mean one sample or all of them", remedy=_AMBIGUOUS, field="keep")
    return ("count" if isinstance(amount, int) else "share"), amount


def _number(given: Any) -> Any:
    """A whole number as int and any other as float; what is neither is None or as it is."""
    if isinstance(given, str):
        text = given.strip()
        if _WHOLE.fullmatch(text):
            return int(text)
        found = _DECIMAL.fullmatch(text)
        return given if found is None else float(found[1]) / (100 if found[2] else 1)
    if isinstance(given, bool):
        return None
    if isinstance(given, Integral):
        return int(given)
    if isinstance(given, Real):
        try:
            return float(given)
        except OverflowError:
            return given
    return given


def _refused(given: Any) -> UsageError:
    if given is None:
        return UsageError("keep: how much to keep is missing", remedy=HELP, field="keep")
    return UsageError(f"keep: {HELP}, not {shown(given)}", remedy=_ROUNDED, field="keep")


def _checked(given: Any) -> Keep:
    try:
        return parse_keep(given)
    except UsageError as error:
        said = {"text": error.message.removeprefix("keep: "), "remedy": error.remedy}
        raise PydanticCustomError("keep", "{text}", said) from error


Amount = Annotated[
    Keep,
    BeforeValidator(_checked),
    PlainSerializer(Keep.plain, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "string"},
                *(
                    {"type": "object", "properties": {name: about}, "required": [name]}
                    for name, about in (
                        ("share", {"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
                        ("count", {"type": "integer", "minimum": 1}),
                        ("tokens", {"type": "integer", "minimum": 1}),
                    )
                ),
            ]
        }
    ),
]
"""The field that says how much to keep, of a request or recipe, in any of the forms of `parse_keep`."""
DESCRIPTION = (
    "a share of the measured samples, rounded up (0.25, 1.0, 25%), or a count of them (500); by name "
    '{"share": 1}, {"count": 1} or {"tokens": 90000}; a plain 1 is refused, as it may mean either'
)
