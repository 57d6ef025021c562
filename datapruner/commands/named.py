"""Sets of rows that an option names, one each time that it is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datapruner.errors import UsageError


def named_sets(given: Sequence[str], option: str) -> dict[str, str]:
    """`["a.jsonl", "b=c.jsonl"]` by name: a set without one is called as its file. Raises UsageError."""
    found: dict[str, str] = {}
    for item in given:
        name, equals, source = item.partition("=")
        if not equals or _exists(item):
            name, source = Path(item).absolute().stem if item else "", item
        if not (name and source):
            raise UsageError(f"{option} {item!r} is not NAME=DATA")
        if name in found:
            raise UsageError(f"{option}: two sets are called {name}", remedy=f"write {option} NAME=DATA")
        found[name] = source
    return found


def _exists(place: str) -> bool:
    try:
        return Path(place).exists()
    except OSError:  # a name too long for a file
        return False


def targets(given: Sequence[str] | None) -> str | dict[str, str] | None:
    """The rows to select towards: one set without a name, or sets by their tasks. Raises UsageError."""
    if not given:
        return None
    if len(given) == 1 and ("=" not in given[0] or _exists(given[0])):
        return given[0]
    return named_sets(given, "--target")
