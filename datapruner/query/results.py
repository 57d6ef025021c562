"""The rows of a query as JSON, CSV, Parquet or an Arrow stream.

What JSON and CSV cells look like; every JSON document is valid, and says what Arrow has of DuckDB's values
(UHUGEINT has no place there from 2**127 on: cast it to VARCHAR):

    whole numbers     numbers; from 2**53 on, which JavaScript rounds, decimal text
    decimals          numbers; of more than 15 digits, which a double does not hold, decimal text
    floats            numbers; "NaN", "Infinity", "-Infinity"
    dates and times   ISO 8601 text, with "Z" where the type has a zone; infinity and 24:00 as
                      "<value out of range: ...>"
    intervals         ISO 8601 durations, such as P1M2DT0.5S
    blobs             base64; so are BIT, BIGNUM, GEOMETRY and VARIANT, in DuckDB's own coding: cast them
    lists             arrays
    structs           objects
    maps              arrays of {"key": ..., "value": ...}
    JSON, UUID, enum  text
    unions            the value

CSV is UTF-8 with one line of column names; text, dates and JSON of lists and structs stand in double quotes,
inner ones doubled; numbers and booleans do not; null is an empty field, empty text is "". Lines end in LF.
An Arrow schema has DuckDB's names of the types in its metadata, as a JSON array under `types`.
Columns of the same name get a number in all four.

This runs in the process of the query (`child.py`): how long an answer takes to write, and how large it gets,
is for whoever wrote the statement to say. It imports nothing of datapruner, and holds a few rows at a time as
Python objects.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

Format = Literal["json", "arrow", "parquet", "csv"]
_EXACT = 2**53 - 1
_DIGITS = 15
_SPACE = re.compile(r"(?<=\d) (?=\d)")
_NANOSECONDS = 1_000_000_000
#: Rows that are Python objects at the same time.
_ROWS = 1_024
_TYPES = "types"


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Rows of a query; `truncated` when there were more than the limits allow. `seconds` it took to run.
    `types` are the columns' types as DuckDB names them."""

    table: pa.Table
    truncated: bool
    seconds: float
    types: Sequence[str]


class UnwritableError(Exception):
    """A type of the result has no place in the format."""


class TooLongError(Exception):
    """The document is longer than it may be."""


class _Bounded(io.BytesIO):
    """Takes at most `most` bytes. Raises TooLongError."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > self.most:
            raise TooLongError
        return super().write(data)


def write(result: QueryResult, kind: Format, most: int) -> memoryview:
    """The result as a document of that format, of at most `most` bytes.

    Raises TooLongError, and UnwritableError when a type has no place in the format.
    """
    sink = _Bounded(most)
    names = apart(result.table.column_names)
    try:
        _WRITERS[kind](replace(result, table=result.table.rename_columns(names)), sink)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise UnwritableError(str(error)) from error
    return sink.getbuffer()


def read(document: bytes, *, truncated: bool, seconds: float) -> QueryResult:
    """The result that was written as Arrow. Raises ValueError, as Arrow does, for anything else."""
    table = pa.ipc.open_stream(document).read_all()
    metadata = table.schema.metadata or {}
    types = json.loads(metadata.get(_TYPES.encode(), b"null"))
    if not isinstance(types, list) or len(types) != table.num_columns:
        raise ValueError("the types of the columns are missing")
    return QueryResult(table.replace_schema_metadata(None), truncated, seconds, types)


def _json(result: QueryResult, sink: _Bounded) -> None:
    names = result.table.column_names
    columns = [{"name": name, "type": kind} for name, kind in zip(names, result.types, strict=True)]
    sink.write(b'{"columns":' + orjson.dumps(columns) + b',"rows":[')
    between = b""
    for batch in _batches(result.table):
        for row in zip(*map(_cells, batch.columns), strict=True):
            sink.write(between)
            sink.write(orjson.dumps(row))
            between = b","
    rest = {"truncated": result.truncated, "seconds": result.seconds}
    sink.write(b"]," + orjson.dumps(rest)[1:])


def _arrow(result: QueryResult, sink: _Bounded) -> None:
    table = result.table.replace_schema_metadata({_TYPES: json.dumps(result.types)})
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)


def _parquet(result: QueryResult, sink: _Bounded) -> None:
    pq.write_table(result.table, sink, compression="zstd")


def _csv(result: QueryResult, sink: _Bounded) -> None:
    plain = [any(is_kind(each.type) for is_kind in _PLAIN) for each in result.table.schema]
    schema = pa.schema(
        [
            each if is_plain else pa.field(each.name, pa.string())
            for each, is_plain in zip(result.table.schema, plain, strict=True)
        ]
    )
    with pa.csv.CSVWriter(sink, schema) as writer:
        for batch in _batches(result.table):
            columns = [
                column if is_plain else pa.array(map(_text, _cells(column)), pa.string())
                for column, is_plain in zip(batch.columns, plain, strict=True)
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


def _batches(table: pa.Table) -> Iterator[pa.RecordBatch]:
    return (batch for batch in table.to_batches(max_chunksize=_ROWS) if batch.num_rows)


def _text(cell: Any) -> str | None:
    return cell if cell is None or isinstance(cell, str) else orjson.dumps(cell).decode()


def apart(names: Iterable[str]) -> list[str]:
    """The names, with a number after those that come before already. Takes linear time: a number that was
    found taken is not tried again."""
    found: dict[str, None] = {}
    numbers: dict[str, int] = {}
    for name in names:
        unlike = name
        while unlike in found:
            numbers[name] = numbers.get(name, 0) + 1
            unlike = f"{name}_{numbers[name]}"
        found[unlike] = None
    return list(found)


_WRITERS: dict[Format, Callable[[QueryResult, _Bounded], None]] = {
    "json": _json,
    "arrow": _arrow,
    "parquet": _parquet,
    "csv": _csv,
}
#: What CSV has as it is; everything else becomes its text or JSON there.
_PLAIN = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_string,
)


def _cells(array: pa.Array) -> list[Any]:
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _cells(array.storage)
    if pa.types.is_dictionary(kind):
        return _cells(array.dictionary_decode())
    if pa.types.is_union(kind):
        members = [_cells(array.field(number)) for number in range(kind.num_fields)]
        return [members[code][row] for row, code in enumerate(array.type_codes.to_pylist())]
    if pa.types.is_struct(kind):
        return _structs(array)
    if pa.types.is_map(kind):
        pairs = pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)]))
        return _cells(array.cast(pairs))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        values = iter(_cells(array.flatten()))
        lengths = pc.list_value_length(array).to_pylist()
        return [None if n is None else [next(values) for _ in range(n)] for n in lengths]
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        texts = array.cast(pa.string()).to_pylist()
        return [None if text is None else _SPACE.sub("T", text) for text in texts]
    convert = next((convert for is_kind, convert in _SCALARS if is_kind(kind)), None)
    values = array.to_pylist()
    return values if convert is None else [None if value is None else convert(value) for value in values]


def _structs(array: pa.StructArray) -> list[Any]:
    names = [field.name for field in array.type]
    rows: Iterator[tuple[Any, ...]] = zip(*map(_cells, array.flatten()), strict=True)
    if not names:
        rows = iter([()] * len(array))
    return [
        dict(zip(names, row, strict=True)) if there else None
        for row, there in zip(rows, array.is_valid().to_pylist(), strict=True)
    ]


def _integer(value: int) -> int | str:
    return value if abs(value) <= _EXACT else str(value)


def _float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _decimal(value: Decimal) -> int | float | str:
    _, digits, exponent = value.as_tuple()
    if exponent == 0:
        return _integer(int(value))
    return float(value) if len(digits) <= _DIGITS else format(value, "f")


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _interval(value: pa.MonthDayNano) -> str:
    months, days, nanoseconds = value
    seconds, rest = divmod(abs(nanoseconds), _NANOSECONDS)
    fraction = f".{rest:09}".rstrip("0") if rest else ""
    sign = "-" if nanoseconds < 0 else ""
    return f"P{months}M{days}DT{sign}{seconds}{fraction}S"


_SCALARS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any], Any]], ...] = (
    (pa.types.is_integer, _integer),
    (pa.types.is_floating, _float),
    (pa.types.is_decimal, _decimal),
    (pa.types.is_interval, _interval),
    (pa.types.is_binary, _base64),
    (pa.types.is_large_binary, _base64),
    (pa.types.is_fixed_size_binary, _base64),
)
