"""The rows to select towards, as they are asked for: one set, or several, each a task by its name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, WithJsonSchema

from datapruner.request.parts import Name, Place

MOST_SETS = 100
_SETS: TypeAdapter[dict[str, str]] = TypeAdapter(
    Annotated[dict[Name, Place], Field(min_length=1, max_length=MOST_SETS)]
)
_SET: TypeAdapter[str] = TypeAdapter(Place)


def _targets(given: Any) -> str | dict[str, str] | None:
    """One set or several; a text may hold a JSON object, as in a form."""
    if isinstance(given, str) and given.lstrip().startswith("{"):
        with suppress(ValueError, RecursionError):  # else it is a place with a strange name
            given = json.loads(given)
    if given is None:
        return None
    return _SETS.validate_python(given) if isinstance(given, Mapping) else _SET.validate_python(given)


Targets = Annotated[
    str | dict[str, str] | None,
    BeforeValidator(_targets),
    WithJsonSchema({"anyOf": [_SET.json_schema(), _SETS.json_schema(), {"type": "null"}]}),
]
"""The field of a request that names them; as in a mapping, the name of a set is that of its task."""


def by_task(targets: Any) -> dict[str, Any]:
    """Sets by their tasks, "" for one that has no name."""
    return dict(targets) if isinstance(targets, Mapping) else {"": targets}
