"""What the doors have in common that ask for a run: Python, HTTP and its forms, and so the client.

`method` and `methods` are two spellings of one setting, a name or a list of names. What says how much to keep
prunes, with one method; what does not say so scores, by one method or several.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from datapruner.errors import UsageError
from datapruner.request.config import MethodChoice
from datapruner.request.keep import Keep, parse_keep

MOST_METHODS = 50
_BOTH = "method and methods are two spellings of one setting"


def listed(given: Any) -> list[str]:
    """A name, or several, as a list; a text may hold a JSON list, as in a form. Raises UsageError."""
    if isinstance(given, str) and given.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):  # else it is the name of no method
            given = json.loads(given)
    names = [given] if isinstance(given, str) else given
    if (
        not isinstance(names, Sequence)
        or not 1 <= len(names) <= MOST_METHODS
        or not all(isinstance(name, str) for name in names)
    ):
        raise UsageError(
            "methods: must be the name of a method, or a list of names",
            remedy='such as "donod" or ["donod", "ppl"]',
            field="methods",
        )
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"methods: {min(twice)} comes twice", remedy="leave one out", field="methods")
    return list(names)


def _checked(given: Any) -> list[str]:
    try:
        return listed(given)
    except UsageError as error:
        said = {"text": error.message.removeprefix("methods: "), "remedy": error.remedy}
        raise PydanticCustomError("methods", "{text}", said) from error


Names = Annotated[
    list[str],
    BeforeValidator(_checked),
    PlainSerializer(lambda names: names[0] if len(names) == 1 else names, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "array",
                    "items": {"type": "string"},
                    "minItems": 1,
                    "maxItems": MOST_METHODS,
                    "uniqueItems": True,
                },
            ]
        }
    ),
    Field(description="name of a method, or a list of them; `method` and `methods` are the same setting"),
]
"""The field of a request that names methods."""


def one_spelling(method: Any, methods: Any, default: str | None = None) -> list[str]:
    """The names that were given in one of the two spellings. Raises UsageError for both, or none."""
    if method is not None and methods is not None:
        raise UsageError(_BOTH, remedy="give one of them", field="methods")
    given = default if method is None and methods is None else method if methods is None else methods
    if given is None:
        raise UsageError("the method is missing", remedy="see the list of methods", field="method")
    return listed(given)


def choices(
    names: Sequence[str],
    options: Mapping[str, Any] | None,
    *,
    token_keep: float | None = None,
    preset: str | None = None,
) -> tuple[list[MethodChoice], float | None]:
    """The methods with their options, and the share that the preset keeps.

    `options` are those of the one method, or by the methods' names; `token_keep` is one of them. Raises
    UsageError for what does not exist, is out of range, or does not say of which method it is.
    """
    given = dict(options or {})
    by_name = bool(given) and all(isinstance(each, Mapping) for each in given.values())
    if by_name and (stray := sorted(given.keys() - set(names))):
        raise UsageError(
            f"options for {', '.join(stray)}, which is not among the methods {', '.join(names)}",
            field="options",
        )
    if len(names) == 1:
        [name] = names
        own = dict(given[name]) if by_name else given
        own |= {} if token_keep is None else {"token_keep": token_keep}
        choice, share = MethodChoice.of(name, own, preset)
        return [choice], share
    for setting, value in (("token_keep", token_keep), ("preset", preset)):
        if value is not None:
            raise UsageError(
                f"{setting} does not say of which method", remedy="name one method", field=setting
            )
    if given and not by_name:
        raise UsageError(
            "with several methods, options are given by the methods' names",
            remedy=f'such as {{"{names[0]}": {{...}}}}',
            field="options",
        )
    return [MethodChoice.of(name, dict(given.get(name, {})))[0] for name in names], None


def amount(keep: Any, keep_tokens: int | None, share: float | None) -> Keep | None:
    """How much to keep: what is given, or else the preset's share; None for neither. Raises UsageError."""
    if keep is None and keep_tokens is None:
        return None if share is None else Keep(share=share)
    return parse_keep(keep, tokens=keep_tokens)


def how_much_is_missing() -> UsageError:
    """For pruning without a word on how much."""
    return UsageError(
        "how much to keep is missing",
        remedy="give keep (0.25, 25% or 500), keep_tokens, or a preset that says",
        field="keep",
    )
