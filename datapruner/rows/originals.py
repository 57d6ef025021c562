"""How a corpus keeps the original columns so that they come out again unchanged.

    source                          kept as                       comes out
    Parquet, Arrow, CSV, datasets   typed columns of the table    under the Arrow schema they had
    JSON, JSON lines, Python rows   each row's own JSON text      verbatim, or as derived typed columns

Kept columns have only types which DuckDB reads and gives back without loss. What others become:

    durations                       whole numbers of their unit
    decimals of over 38 digits      text
    maps                            lists of key and value, as a key may come twice
    dictionaries                    their values
    views, fixed sizes              plain lists and binaries
    float16                         float32
    extension types                 what they store

They get their type again when they come out. What Parquet has no place for comes out as it is kept, but in
JSON:

    months, days and nanoseconds    a struct of the three
    run ends                        their values
    structs without fields          the text {}
    decimals of a negative scale    text

Notable choices:
* The table's columns carry the original names where SQL allows it; DuckDB ignores case and the table has
  its own `row`, so clashing names get a number. The true names are in the Arrow schema.
* Unions have no place: no file format that we write can hold one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datapruner.errors import InputError

_INTERVAL = pa.struct([("months", pa.int32()), ("days", pa.int32()), ("nanoseconds", pa.int64())])
_DIGITS = 38


def check_schema(schema: pa.Schema, name: str) -> None:
    """Raise InputError, naming the column, when a column's type cannot be kept."""
    for field in schema:
        try:
            stored_type(field.type)
        except pa.ArrowNotImplementedError as error:
            raise InputError(
                f"{name}: column '{field.name}' cannot be kept: {error}",
                remedy="drop the column, or cast it to a type of its own",
                field=field.name,
            ) from error


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The Arrow type in which values of `kind` are kept. Raises ArrowNotImplementedError if there is none."""
    if isinstance(kind, pa.BaseExtensionType):
        return stored_type(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return stored_type(kind.value_type)
    if pa.types.is_map(kind):
        entry = pa.struct([("key", stored_type(kind.key_type)), ("value", stored_type(kind.item_type))])
        return pa.list_(entry)
    if pa.types.is_struct(kind):
        if kind.num_fields == 0:
            return pa.string()
        names = unique_names(field.name for field in kind)
        return pa.struct([(n, stored_type(field.type)) for n, field in zip(names, kind, strict=True)])
    if is_list(kind):
        if pa.types.is_fixed_size_list(kind) and kind.list_size == 0:
            raise pa.ArrowNotImplementedError("lists of the fixed size 0")
        return pa.list_(stored_type(kind.value_type))
    if pa.types.is_decimal(kind):
        exact = kind.precision <= _DIGITS and 0 <= kind.scale <= kind.precision
        return pa.decimal128(kind.precision, kind.scale) if exact else pa.string()
    if kind == pa.month_day_nano_interval():
        return _INTERVAL
    if pa.types.is_union(kind) or pa.types.is_interval(kind):
        raise pa.ArrowNotImplementedError(f"the type {kind}")
    for is_kind, plain in _PLAIN:
        if is_kind(kind):
            return plain
    return kind


_PLAIN = (
    (pa.types.is_float16, pa.float32()),
    (pa.types.is_duration, pa.int64()),
    (pa.types.is_string_view, pa.string()),
    (pa.types.is_large_string, pa.string()),
    (pa.types.is_binary_view, pa.binary()),
    (pa.types.is_large_binary, pa.binary()),
    (pa.types.is_fixed_size_binary, pa.binary()),
)


def restored_schema(schema: pa.Schema) -> pa.Schema:
    """The schema under which columns of this one come out."""
    return pa.schema([field.with_type(restored_type(field.type)) for field in schema], schema.metadata)


def restored_type(kind: pa.DataType) -> pa.DataType:
    """The type under which values of `kind` come out: theirs, but for what Parquet has no place for."""
    if _is_lasting(kind):
        return kind
    if isinstance(kind, pa.BaseExtensionType):
        return restored_type(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return restored_type(kind.value_type)
    if pa.types.is_map(kind):
        return pa.map_(restored_type(kind.key_type), restored_type(kind.item_type))
    if is_list(kind):
        value = kind.value_field.with_type(restored_type(kind.value_type))
        return pa.large_list(value) if _is_large(kind) else pa.list_(value)
    if pa.types.is_struct(kind) and kind.num_fields:
        return pa.struct([field.with_type(restored_type(field.type)) for field in kind])
    return stored_type(kind)


def _is_lasting(kind: pa.DataType) -> bool:
    """Whether all of a type has a place in Parquet."""
    if isinstance(kind, pa.BaseExtensionType):
        return _is_lasting(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _is_lasting(kind.value_type)
    if pa.types.is_decimal(kind):
        return bool(0 <= kind.scale <= kind.precision)
    if pa.types.is_run_end_encoded(kind) or pa.types.is_interval(kind):
        return False
    if pa.types.is_struct(kind) and not kind.num_fields:
        return False
    return all(_is_lasting(kind.field(number).type) for number in range(kind.num_fields))


def is_list(kind: pa.DataType) -> bool:
    """Whether values are lists of any layout; maps are not."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in (*lists, pa.types.is_list_view, pa.types.is_large_list_view))


def store(array: pa.Array) -> pa.Array:
    """A column in its stored type."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return store(array.storage)
    if pa.types.is_dictionary(kind):
        return store(array.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return store(pc.run_end_decode(array))
    wanted = stored_type(kind)
    if wanted == kind:
        return array
    if pa.types.is_map(kind):
        return _listed(array, store(entries(array)), wanted)
    if is_list(kind):
        return _listed(array, store(array.flatten()), wanted)
    if pa.types.is_struct(kind):
        if kind.num_fields == 0:
            return pc.if_else(array.is_valid(), "{}", None)
        return _struct([store(child) for child in array.flatten()], wanted, array)
    if kind == pa.month_day_nano_interval():
        return pa.array([_interval(value) for value in array.to_pylist()], wanted)
    return array.cast(wanted)


def restore(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Stored columns, by position, under the names and types of the schema they had, or the restored one."""
    columns = zip(batch.columns, schema, strict=True)
    return pa.RecordBatch.from_arrays(
        [restored(column, field.type) for column, field in columns], schema=schema
    )


def restored(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """A stored column as the type that it had, or its restored type."""
    if array.type == kind:
        return array
    if isinstance(kind, pa.BaseExtensionType):
        return kind.wrap_array(restored(array, kind.storage_type))
    if pa.types.is_dictionary(kind):
        found = restored(array, kind.value_type).dictionary_encode()
        indices = found.indices.cast(kind.index_type)
        return pa.DictionaryArray.from_arrays(indices, found.dictionary, ordered=kind.ordered)
    if pa.types.is_run_end_encoded(kind):
        return pc.run_end_encode(restored(array, kind.value_type), kind.run_end_type)
    if pa.types.is_map(kind):
        keys, items = array.flatten().flatten()
        keys, items = restored(keys, kind.key_type), restored(items, kind.item_type)
        return pa.MapArray.from_arrays(
            _offsets(array, pa.int32()), keys, items, type=kind, mask=_nulls(array)
        )
    if is_list(kind):
        return _listed(array, restored(array.flatten(), kind.value_type), kind)
    if pa.types.is_struct(kind):
        if not kind.num_fields:
            return pa.array([None if text is None else {} for text in array.to_pylist()], kind)
        parts = zip(array.flatten(), kind, strict=True)
        return _struct([restored(child, field.type) for child, field in parts], kind, array)
    if kind == pa.month_day_nano_interval():
        rows = array.to_pylist()
        return pa.array([None if row is None else pa.MonthDayNano([*row.values()]) for row in rows], kind)
    return array.cast(kind)


def entries(array: pa.MapArray) -> pa.StructArray:
    """Keys and values of all maps that are not null, one after another."""
    pairs = pa.struct([("key", array.type.key_type), ("value", array.type.item_type)])
    return array.cast(pa.list_(pairs)).flatten()


def _is_large(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind))


def _listed(array: pa.Array, values: pa.Array, kind: pa.DataType) -> pa.Array:
    """`values` in lists of `kind` as long as those of `array`, null where those are."""
    large = _is_large(kind)
    offsets = _offsets(array, pa.int64() if large else pa.int32())
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        made = pa.LargeListViewArray if large else pa.ListViewArray
        sizes = lengths(array).cast(offsets.type)
        return made.from_arrays(offsets[:-1], sizes, values, type=kind, mask=_nulls(array))
    if pa.types.is_fixed_size_list(kind):
        return _listed(array, values, pa.list_(kind.value_field)).cast(kind)
    made = pa.LargeListArray if large else pa.ListArray
    return made.from_arrays(offsets, values, type=kind, mask=_nulls(array))


def _offsets(array: pa.Array, kind: pa.DataType) -> pa.Array:
    ends = pc.cumulative_sum(lengths(array))
    return pa.concat_arrays([pa.array([0], pa.int64()), ends]).cast(kind)


def lengths(array: pa.Array) -> pa.Array:
    """Length of each list or map, 0 for null."""
    listed = array.cast(pa.list_(array.type.field(0))) if pa.types.is_map(array.type) else array
    return pc.fill_null(pc.list_value_length(listed), 0).cast(pa.int64())


def _nulls(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


def _struct(children: list[pa.Array], kind: pa.DataType, array: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays(children, fields=list(kind), mask=_nulls(array))


def _interval(value: Any) -> dict[str, int] | None:
    if value is None:
        return None
    return {"months": value.months, "days": value.days, "nanoseconds": value.nanoseconds}


def unique_names(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Names that differ, letter case ignored as DuckDB does, from each other and from those `taken`."""
    used = set(taken)
    found = []
    for name in names:
        unique, number = name or "column", 1
        while unique.lower() in used:
            number += 1
            unique = f"{name or 'column'}_{number}"
        used.add(unique.lower())
        found.append(unique)
    return found


def column_names(schema: pa.Schema) -> list[str]:
    """Names for the table's columns, unique for DuckDB and none of them `row`."""
    return unique_names(schema.names, {"row"})
