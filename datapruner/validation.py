"""What is wrong with a value, in people's words: the one place where findings of the validation are worded.

Whatever a user sets arrives by a door of its own (the command line, Python, a form, JSON, a recipe, the
environment) and is checked by the same models. What those find is told alike at every door: the place of the
value, and what it has to be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError

from datapruner.errors import UsageError

ModelT = TypeVar("ModelT")

_WORDS: Mapping[str, str | Callable[[Mapping[str, Any]], str]] = {
    "missing": "this is missing",
    "extra_forbidden": "there is no such setting",
    **dict.fromkeys(
        ("dict_type", "mapping_type", "model_type", "model_attributes_type"),
        "must be names with values, as in {name: value}",
    ),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "iterable_type"), "must be a list"),
    **dict.fromkeys(("string_type", "string_sub_type", "string_unicode"), "must be text"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    "int_parsing_size": "must be a whole number of fewer digits",
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    "finite_number": "must be a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    "greater_than": lambda found: f"must be over {_number(found['gt'])}",
    "greater_than_equal": lambda found: f"must be at least {_number(found['ge'])}",
    "less_than": lambda found: f"must be under {_number(found['lt'])}",
    "less_than_equal": lambda found: f"must be at most {_number(found['le'])}",
    "string_too_short": lambda found: (
        "must not be empty"
        if found["min_length"] == 1
        else f"must have at least {found['min_length']:,} characters"
    ),
    "string_too_long": lambda found: f"must have at most {found['max_length']:,} characters",
    "too_short": lambda found: (
        "must not be empty"
        if found["min_length"] == 1
        else f"must have at least {found['min_length']:,} entries"
    ),
    "too_long": lambda found: f"must have at most {found['max_length']:,} entries",
    "literal_error": lambda found: f"must be {found['expected']}",
    "union_tag_not_found": lambda found: f"must have a {found['discriminator'].strip(chr(39))}",
    "union_tag_invalid": lambda found: (
        f"{found['discriminator'].strip(chr(39))} must be one of {found['expected_tags']}"
    ),
    **dict.fromkeys(
        ("url_type", "url_parsing", "url_syntax_violation", "url_scheme"),
        "must be an address that begins with https:// or http://",
    ),
    "url_too_long": lambda found: f"must have at most {found['max_length']:,} characters",
    "json_invalid": lambda found: f"this is not JSON: {found['error']}",
    "invalid_key": "its names must be text",
    "path_type": "must be the path of a file or folder",
}
"""By the validation's own name of what it found; errors of our own have their text already."""


def _number(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def wording(found: ErrorDetails | Mapping[str, Any]) -> str:
    """What has to be done about one finding, without its place and its value, such as `must be over 0`."""
    words = _WORDS.get(found["type"])
    if words is None:
        return str(found["msg"]).removeprefix("Value error, ")
    return words if isinstance(words, str) else words(found["ctx"])


def place(found: ErrorDetails | Mapping[str, Any]) -> str:
    """Where the value stands, as a dotted path; "" for the whole."""
    at = found["loc"] or found.get("ctx", {}).get("at", ())
    return ".".join(str(part) for part in at if part != "[key]")


def first_problem(error: ValidationError, whole: str = "configuration") -> UsageError:
    """The first thing that is wrong as an error that names its place, or else `whole`."""
    found = error.errors(include_url=False)[0]
    where = place(found)
    remedy = found.get("ctx", {}).get("remedy")
    text = ": ".join(filter(None, (where or whole, f"{wording(found)}{value(found)}")))
    return UsageError(text, remedy=remedy, field=where or None)


def value(found: ErrorDetails | Mapping[str, Any]) -> str:
    """The value at fault, as in `, not 'x'`; nothing where it would not help."""
    given = found["input"]
    told = found["type"] in _WORDS and found["type"] not in ("missing", "extra_forbidden")
    return f", not {shown(given)}" if told and not isinstance(given, dict | list | tuple) else ""


def shown(given: Any) -> str:
    """The beginning of a value, as Python writes it."""
    if isinstance(given, int) and abs(given) >= 2**63:
        return "so large a number"  # which may have more digits than Python writes
    return f"{given!r:.80}"


def made(model: Callable[..., ModelT], whole: str = "configuration", /, **settings: Any) -> ModelT:
    """`model(**settings)`. Raises UsageError naming the first setting that is wrong."""
    try:
        return model(**settings)
    except ValidationError as error:
        raise first_problem(error, whole) from None


def matching(pattern: str, words: str) -> tuple[AfterValidator, WithJsonSchema]:
    """For the type of a text: that all of it matches `pattern`, which is what `words` say it has to be."""
    expression = re.compile(pattern)

    def check(text: str) -> str:
        if expression.fullmatch(text) is None:
            raise PydanticCustomError("pattern", "must be {words}", {"words": words})
        return text

    return AfterValidator(check), WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"})


_KINDS = {str: "text", list: "a list", dict: "names with values, as in {name: value}"}


def of_kind(*kinds: type) -> BeforeValidator:
    """For a field that takes several kinds of values, whose alternatives would each complain otherwise."""
    words = " or ".join(_KINDS[kind] for kind in kinds if kind in _KINDS)

    def check(value: Any) -> Any:
        if isinstance(value, kinds) and not (
            isinstance(value, dict) and any(type(k) is not str for k in value)
        ):
            return value
        raise PydanticCustomError("kind", "must be {words}", {"words": words})

    return BeforeValidator(check)
