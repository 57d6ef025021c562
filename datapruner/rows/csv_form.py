"""CSV, made of the JSON of the same values.

UTF-8 with one line of column names; lines end in LF. A field is what JSON has in its place: text stands in
double quotes, inner ones doubled, and so do lists and objects, as JSON; numbers and booleans do not; null,
and what a row has not, is an empty field, empty text is "".
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import pyarrow as pa
import pyarrow.compute as pc

_TEXT = pa.large_string()


def header(names: Sequence[str]) -> bytes:
    """The line of names."""
    return (",".join(map(_in_quotes, names)) + "\n").encode()


def lines(columns: Sequence[pa.Array]) -> bytes:
    """A line for each row; the columns hold their values as JSON."""
    rows = pc.binary_join_element_wise(*map(_fields, columns), pa.scalar(",", _TEXT))
    return ("\n".join(rows.to_pylist()) + "\n").encode()


def _fields(column: pa.Array) -> pa.Array:
    is_null = pc.equal(column, "null")
    if pc.any(is_null).as_py():
        column = pc.if_else(is_null, pa.scalar("", _TEXT), column)
    # Text without an escape holds no quotes: it is a field as it stands.
    is_escaped = pc.and_(pc.starts_with(column, '"'), pc.match_substring(column, "\\"))
    if pc.any(is_escaped).as_py():
        escaped = column.filter(is_escaped).to_pylist()
        fields = pa.array([_in_quotes(orjson.loads(text)) for text in escaped], _TEXT)
        column = pc.replace_with_mask(column, is_escaped, fields)
    is_nested = pc.or_(pc.starts_with(column, "["), pc.starts_with(column, "{"))
    if pc.any(is_nested).as_py():
        mark = pa.scalar('"', _TEXT)
        doubled = pc.replace_substring(column, '"', '""')
        fields = pc.binary_join_element_wise(mark, doubled, mark, pa.scalar("", _TEXT))
        column = pc.if_else(is_nested, fields, column)
    return column


def _in_quotes(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
