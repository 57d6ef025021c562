"""Why a row is not a sample, and the small readers of values that say so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson

_PYTHON_REPR = re.compile(r"\s*\[?\s*\{\s*'\w+'\s*:")
_PYTHON_MESSAGES = re.compile(
    r"\s*\[?\s*\{\s*'(role|from|content|value)'\s*:.*'(role|from|content|value)'\s*:", re.DOTALL
)
_FILL_IN = "fill in the response or remove the row"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one row may weigh before it is rejected."""

    max_turns: int = 1000
    max_row_bytes: int = 16 * 1024 * 1024


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a row is not a sample.

    `code` is stable and made for grouping; `field` is the column, with a path inside it where that
    helps (`messages[3].content`), None when the whole row is at fault.
    """

    code: str
    field: str | None
    reason: str
    remedy: str


class RejectedRowError(Exception):
    """Raised inside parsing, turned into its `Rejection` by `RowParser.parse`."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.reason)
        self.rejection = rejection


def is_blank(text: str) -> bool:
    return not text or text.isspace()


def type_name(value: object) -> str:
    """The JSON name of a value's type, with its article."""
    names = {
        "NoneType": "null",
        "dict": "an object",
        "list": "a list",
        "str": "a string",
        "bool": "a boolean",
        "int": "an integer",
        "float": "a number",
    }
    kind = type(value).__name__
    return names.get(kind, kind)


def too_large(size: int, limits: Limits) -> Rejection:
    """The rejection of a row that exceeds `limits.max_row_bytes`; readers use it before parsing."""
    return Rejection(
        "row_too_large",
        None,
        f"the row has at least {size:,} bytes, the limit is {limits.max_row_bytes:,}",
        "shorten the row; a service can allow more (DATAPRUNER_MAX_ROW_BYTES)",
    )


def reject(code: str, field: str | None, reason: str, remedy: str) -> NoReturn:
    raise RejectedRowError(Rejection(code, field, reason, remedy))


def reject_type(field: str | None, expected: str, value: object, code: str = "wrong_type") -> NoReturn:
    reject(
        code, field, f"'{field}' is {type_name(value)}, expected {expected}", f"write '{field}' as {expected}"
    )


def reject_missing(code: str, column: str, row: Mapping[str, Any]) -> NoReturn:
    listed = ", ".join(repr(name) for name in list(row)[:20])
    reject(
        code, column, f"there is no column '{column}'; the row has {listed}", "name the column with a mapping"
    )


def reject_repr(text: str, field: str | None, pattern: re.Pattern[str] = _PYTHON_REPR) -> None:
    """Reject a text that Python wrote of a list or dictionary: it has single quotes where JSON has double."""
    if pattern.match(text):
        reason = f"'{field}' is text as Python prints a list or dictionary, not JSON"
        reject("python_text", field, reason, "write the value with json.dumps, not with str or repr")


def reject_messages_repr(text: str, field: str) -> None:
    """Reject messages that Python wrote, in a column where any other text is welcome."""
    reject_repr(text, field, _PYTHON_MESSAGES)


def load_list(value: object, field: str | None, code: str = "wrong_type") -> list[Any] | None:
    """The list itself, or the list that a string holds as JSON; None for null and blank text."""
    loaded = value
    if isinstance(value, str):
        if is_blank(value):
            return None
        try:
            loaded = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            reject_repr(value, field)
            reject(code, field, f"'{field}' is text, and not a JSON list: {error.msg}", "write a list")
    if loaded is not None and not isinstance(loaded, list):
        reject_type(field, "a list", loaded, code)
    return loaded


def optional_text(row: Mapping[str, Any], column: str | None) -> str | None:
    value = row.get(column) if column is not None else None
    if value is None:
        return None
    if not isinstance(value, str):
        reject_type(column, "a string", value)
    return None if is_blank(value) else value


def response_text(value: object, field: str) -> str:
    if isinstance(value, str):
        if is_blank(value):
            reject("missing_response", field, f"'{field}' is empty", _FILL_IN)
        return value
    if value is None:
        reject("missing_response", field, f"'{field}' is null", _FILL_IN)
    reject_type(field, "a string", value)


def too_many_turns(count: int, field: str | None, limits: Limits) -> NoReturn:
    """Reject a conversation that exceeds `limits.max_turns`."""
    reason = f"{count:,} turns, the limit is {limits.max_turns:,}"
    remedy = "split the conversation; a service can allow more (DATAPRUNER_MAX_TURNS)"
    reject("too_many_turns", field, reason, remedy)
