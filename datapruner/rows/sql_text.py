"""Names and texts as they stand in an SQL statement, where no parameter can."""

from __future__ import annotations


def identifier(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: object) -> str:
    """A text, or what is one when written, as an SQL string."""
    return "'" + str(value).replace("'", "''") + "'"
