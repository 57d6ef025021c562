"""What DuckDB has and Arrow does not: values that leave a query as text, for Arrow would change them.

    UHUGEINT             digits
    BIGNUM               digits
    BIT                  zeros and ones
    TIME WITH TIME ZONE  the time with its offset, such as 12:00:00+05:30
    GEOMETRY             well-known text
    VARIANT              JSON

In a list, struct or map they are text at their place. Arrow has minus one for the largest UHUGEINT, forgets
the offset of a time, and keeps the rest in DuckDB's own coding.
"""

from __future__ import annotations

import duckdb
from duckdb.sqltypes import DuckDBPyType

from datapruner.rows.sql_text import identifier

_AS = {
    "uhugeint": "VARCHAR",
    "bignum": "VARCHAR",
    "bit": "VARCHAR",
    "time with time zone": "VARCHAR",
    "geometry": "VARCHAR",
    "variant": "JSON",
}


def told(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """The relation with such values as text; nothing is computed yet."""
    if not any(map(_changes, relation.types)):
        return relation
    columns = []
    for number, (name, kind) in enumerate(zip(relation.columns, relation.types, strict=True), 1):
        value = f"CAST(#{number} AS {_leaving(kind)})" if _changes(kind) else f"#{number}"
        columns.append(f"{value} AS {identifier(name)}")
    return relation.project(", ".join(columns))


def _changes(kind: DuckDBPyType) -> bool:
    return kind.id in _AS or any(_changes(part) for _, part in _parts(kind))


def _leaving(kind: DuckDBPyType) -> str:
    """The SQL of the type as which values of a type leave."""
    if not _changes(kind):
        return str(kind)
    if kind.id in _AS:
        return _AS[kind.id]
    parts = [(name, _leaving(part)) for name, part in _parts(kind)]
    if kind.id == "list":
        return f"{parts[0][1]}[]"
    if kind.id == "array":
        return f"{parts[0][1]}[{dict(kind.children)['size']}]"
    if kind.id in ("map", "tuple"):
        return f"{kind.id}({', '.join(part for _, part in parts)})"
    return f"{kind.id}({', '.join(f'{identifier(name)} {part}' for name, part in parts)})"


def _parts(kind: DuckDBPyType) -> list[tuple[str, DuckDBPyType]]:
    """The types within a type, with their names."""
    if kind.id not in ("list", "array", "map", "tuple", "struct", "union"):
        return []
    tag = 1 if kind.id == "union" else 0  # a union's first part says which of the others it is
    return [(name, part) for name, part in kind.children[tag:] if isinstance(part, DuckDBPyType)]
