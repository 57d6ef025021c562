"""Shapes that several resources share."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from datapruner.validation import matching

T = TypeVar("T")
Place = tuple[str | int, ...]
_SURROGATE = re.compile("[\ud800-\udfff]")


def _in_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Moment = Annotated[datetime, AfterValidator(_in_utc)]
"""A point in time, sent with its zone; the database keeps UTC without one."""

Name = Annotated[
    str,
    *matching(
        r"[a-z][a-z0-9_]{0,62}",
        "a small letter and then, if anything, small letters, digits and _, at most 63 characters in all",
    ),
]
"""A plain lower-case identifier."""


class Request(BaseModel):
    """Body of a request: unknown fields are errors, and so is text or a number that no database takes.

    `rows` are data, which go to a file: what they hold is judged row by row when they are read.
    """

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _fit_for_a_database(cls, given: Any) -> Any:
        if isinstance(given, dict):
            for where, error in unfit({name: value for name, value in given.items() if name != "rows"}):
                raise ValidationError.from_exception_data(
                    cls.__name__, [InitErrorDetails(type=error, loc=where, input=None)]
                )
        return given


def unfit(value: Any, at: Place = ()) -> Iterator[tuple[Place, PydanticCustomError]]:
    """Where in `value` is something that JSON allows and databases do not, and what it is."""
    match value:
        case dict():
            for key, item in value.items():
                # A key that is unfit cannot be named, so the place is that of the object.
                of_key = list(unfit(key, at))
                yield from of_key or unfit(item, (*at, key))
        case list():
            for index, item in enumerate(value):
                yield from unfit(item, (*at, index))
        case str() if "\0" in value:
            yield at, PydanticCustomError("unfit", "the text has a character with code 0")
        case str() if _SURROGATE.search(value):
            yield at, PydanticCustomError("unfit", "the text has half of a surrogate pair")
        case float() if not math.isfinite(value):
            yield at, PydanticCustomError("unfit", "must be a finite number")


class Answer(BaseModel):
    """Body of an answer, made of a row of the catalog or of named values."""

    model_config = ConfigDict(from_attributes=True)


class Page(BaseModel, Generic[T]):
    """One page of a listing, the newest first. `next` is the cursor of the next page, null on the last."""

    items: list[T]
    next: str | None


class Dependent(BaseModel):
    """How many things go when something is deleted."""

    kind: str
    count: int = Field(ge=0)
