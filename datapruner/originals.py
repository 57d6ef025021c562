"""How a corpus keeps the original columns so that they come out again unchanged.

    source                          kept as                       comes out
    Parquet, Arrow, CSV, datasets   typed columns of the table    cast back to the Arrow schema they had
    JSON, JSON lines, Python rows   each row's own JSON text      verbatim, or as derived typed columns

Notable choices:
* The table's columns carry the original names where SQL allows it; DuckDB ignores case and the table has
  its own `row`, so clashing names get a number. The true names are in the Arrow schema.
* Derived types: whole numbers become BIGINT, a column of mixed types its JSON text, and so does an object
  with so many keys that it is a dictionary rather than a record. Whole numbers beyond 64 bits become
  DOUBLE, as with every JSON reader; the verbatim text still has them.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

#: More keys than this in a nested object make it a dictionary, kept as JSON text.
_MAX_KEYS = 200


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The Arrow type in which DuckDB can hold values of `kind` and give them back."""
    if isinstance(kind, pa.BaseExtensionType):
        return stored_type(kind.storage_type)
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_duration(kind):
        return pa.int64()
    if pa.types.is_decimal256(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([stored_field(field) for field in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(stored_field(kind.value_field), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or _is_list_view(kind):
        return pa.list_(stored_field(kind.value_field))
    return kind


def stored_field(field: pa.Field) -> pa.Field:
    return pa.field(field.name, stored_type(field.type))


def _is_list_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def restored_schema(schema: pa.Schema) -> pa.Schema:
    """The schema that comes out: the original's, save types that Arrow cannot cast back to."""
    fields = []
    for field in schema:
        try:
            _restore(pa.array([], stored_type(field.type)), field.type)
            fields.append(field)
        except pa.ArrowException:
            fields.append(field.with_type(stored_type(field.type)))
    return pa.schema(fields, schema.metadata)


def store(batch: pa.RecordBatch) -> list[pa.Array]:
    """The columns of a batch in stored types."""
    return [
        column if (kind := stored_type(column.type)) == column.type else _to_stored(column, kind)
        for column in batch.columns
    ]


def _to_stored(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    return column.cast(kind)


def restore(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Stored columns, by position, under the names and types of `schema`."""
    columns = [_restore(column, field.type) for column, field in zip(table.columns, schema, strict=True)]
    return pa.table(columns, schema=schema)


def _restore(column: Any, kind: pa.DataType) -> Any:
    if column.type == kind:
        return column
    if isinstance(kind, pa.BaseExtensionType):
        storage = column.cast(kind.storage_type)
        if isinstance(storage, pa.ChunkedArray):
            return pa.chunked_array([kind.wrap_array(chunk) for chunk in storage.chunks], kind)
        return kind.wrap_array(storage)
    return column.cast(kind)


def column_names(schema: pa.Schema) -> list[str]:
    """Names for the table's columns, unique for DuckDB and none of them `row`."""
    taken = {"row"}
    names = []
    for name in schema.names:
        unique, number = name or "column", 1
        while unique.lower() in taken:
            number += 1
            unique = f"{name or 'column'}_{number}"
        taken.add(unique.lower())
        names.append(unique)
    return names


def quote(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def json_column_types(structure: str | None, *, small: bool) -> dict[str, Any]:
    """Top-level column to json_transform type, from what json_group_structure found over the rows.

    `small` promises that no number has 19 digits, so that every whole number fits BIGINT.
    """
    found = json.loads(structure) if structure else {}
    names = {"NULL": "VARCHAR"} | (dict.fromkeys(("UBIGINT", "HUGEINT"), "BIGINT") if small else {})
    return {name: _json_type(kind, names) for name, kind in found.items()}


def _json_type(kind: Any, names: dict[str, str]) -> Any:
    if isinstance(kind, dict):
        if not kind or len(kind) > _MAX_KEYS or len({key.lower() for key in kind}) < len(kind):
            return "JSON"
        return {key: _json_type(value, names) for key, value in kind.items()}
    if isinstance(kind, list):
        return [_json_type(value, names) for value in kind]
    return names.get(kind, kind)
