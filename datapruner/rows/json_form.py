"""Arrow columns as JSON, a whole column at a time.

    numbers                      numbers, all digits; "NaN", "Infinity" and "-Infinity" are text
    decimals                     text, all digits
    dates, times                 ISO 8601 text, with the offset where the type has a zone
    durations, intervals         ISO 8601 durations, such as PT1.5S and P1M2DT0.5S
    binaries                     base64 text
    lists                        arrays
    structs                      objects, with null for a field that is null
    maps                         arrays of {"key": ..., "value": ...}
    dictionaries, run ends       their values
    extension types              what they store

Notable choice: nothing here hands columns to another library, of which each has types that it does not know.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from datapruner.errors import InputError
from datapruner.rows.originals import entries, is_list, lengths

TEXT = pa.large_string()
#: How a float that is no number is written: in valid JSON, and in the rows that a corpus keeps.
IN_JSON = ('"NaN"', '"Infinity"', '"-Infinity"')
IN_CORPUS = ("NaN", "Infinity", "-Infinity")

_SPACE = re.compile(r"(?<=\d) (?=\d)")
_ZONE = re.compile(r"([+-]\d\d)(\d\d)$")
_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def lines(batch: pa.RecordBatch, name: str, words: Sequence[str] = IN_JSON) -> list[bytes]:
    """Each row as one line of JSON. Raises InputError, naming `name` and the column, for a type that has no
    place in it."""
    columns = [_column(batch, number, name, words) for number in range(batch.num_columns)]
    rows = _objects(batch.schema.names, columns, batch.num_rows)
    found: list[bytes] = rows.cast(pa.large_binary()).to_pylist()
    return found


def _column(batch: pa.RecordBatch, number: int, name: str, words: Sequence[str]) -> pa.Array:
    try:
        return fragments(batch.column(number), words)
    except (pa.ArrowException, ValueError) as error:
        raise InputError(
            f"{name}: column '{batch.schema.names[number]}' cannot be written as JSON: {error}",
            remedy="drop the column, or cast it to text",
            field=batch.schema.names[number],
        ) from error


def fragments(array: pa.Array, words: Sequence[str] = IN_JSON) -> pa.Array:
    """Each value as JSON text; "null" for null. `words` are those for NaN, infinity and minus infinity.

    Raises ArrowException for a type that has no place in JSON.
    """
    text = _fragments(_plain(array), words)
    return pc.fill_null(text.cast(TEXT), "null") if text.null_count else text.cast(TEXT)


def _fragments(array: pa.Array, words: Sequence[str]) -> pa.Array:
    """`fragments` with null for null, of an array that is `_plain`."""
    kind = array.type
    if pa.types.is_struct(kind):
        parts = [fragments(child, words) for child in array.flatten()]
        return _where(array, _objects([field.name for field in kind], parts, len(array)))
    if pa.types.is_map(kind):
        return _where(array, _arrays(array, fragments(entries(array), words)))
    if is_list(kind):
        return _where(array, _arrays(array, fragments(array.flatten(), words)))
    if pa.types.is_null(kind):
        return pa.nulls(len(array), TEXT)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return array.cast(TEXT)
    if pa.types.is_floating(kind):
        return _floats(array, words)
    if _is_text(kind):
        return _quoted(array)
    if pa.types.is_decimal(kind):
        return _in_marks(array.cast(TEXT))
    for is_kind, convert in _BY_VALUE:
        if is_kind(kind):
            return _in_marks(pa.array([None if v is None else convert(v) for v in _values(array)], TEXT))
    raise pa.ArrowNotImplementedError(f"the type {kind}")


def _plain(array: pa.Array) -> pa.Array:
    """The array under a type that says what its values are, not how they are laid out."""
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        elif pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        elif pa.types.is_run_end_encoded(array.type):
            array = pc.run_end_decode(array)
        else:
            return array


def _objects(names: Sequence[str], columns: Sequence[pa.Array], count: int) -> pa.Array:
    """Objects of these columns of fragments, `count` of them."""
    if not names:
        return pa.array(["{}"] * count, TEXT)
    if len(set(names)) < len(names):
        raise pa.ArrowNotImplementedError("an object cannot have two fields of one name")
    pieces: list[Any] = []
    for name, column in zip(names, columns, strict=True):
        opening = "," if pieces else "{"
        pieces += [pa.scalar(f"{opening}{quoted(name)}:", TEXT), column]
    return pc.binary_join_element_wise(*pieces, pa.scalar("}", TEXT), pa.scalar("", TEXT))


def _arrays(array: pa.Array, values: pa.Array) -> pa.Array:
    """Arrays of the fragments `values`, as long as the lists of `array`."""
    ends = pc.cumulative_sum(lengths(array))
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends])
    joined = pc.binary_join(pa.LargeListArray.from_arrays(offsets, values), pa.scalar(",", TEXT))
    return _around(joined, "[", "]")


def _where(array: pa.Array, text: pa.Array) -> pa.Array:
    if not array.null_count:
        return text
    return pc.if_else(array.is_valid(), text, pa.scalar(None, TEXT))


def _around(text: pa.Array, before: str, after: str) -> pa.Array:
    return pc.binary_join_element_wise(
        pa.scalar(before, TEXT), text, pa.scalar(after, TEXT), pa.scalar("", TEXT)
    )


def _in_marks(text: pa.Array) -> pa.Array:
    return _around(text, '"', '"')


def quoted(text: str) -> str:
    """Text as a JSON string."""
    return orjson.dumps(text).decode()


def _quoted(array: pa.Array) -> pa.Array:
    dumps = orjson.dumps  # faster than a pass over the column for each character to escape
    return pa.array([None if text is None else dumps(text) for text in array.to_pylist()], TEXT)


def _floats(array: pa.Array, words: Sequence[str]) -> pa.Array:
    """Shortest digits that give the value again, told from whole numbers by a point or an exponent."""
    text = array.cast(TEXT)
    whole = pc.invert(pc.match_substring_regex(text, "[.en]"))
    text = pc.if_else(whole, _around(text, "", ".0"), text)
    if pc.all(pc.is_finite(array)).as_py() is False:
        array = array.cast(pa.float64())
        nan, infinite, negative = (pa.scalar(word, TEXT) for word in words)
        sign = pc.if_else(pc.less(array, 0), negative, infinite)
        text = pc.if_else(pc.is_nan(array), nan, pc.if_else(pc.is_inf(array), sign, text))
    return text


def _is_text(kind: pa.DataType) -> bool:
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_kind(kind) for is_kind in texts)


def _values(array: pa.Array) -> list[Any]:
    """Values to convert one by one: as Python has them, but text of what it cannot hold."""
    kind = array.type
    if pa.types.is_duration(kind):
        return [None if v is None else (v, _SECOND[kind.unit]) for v in array.cast(pa.int64()).to_pylist()]
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        texts: list[Any] = array.cast(pa.string()).to_pylist()
        return texts
    values: list[Any] = array.to_pylist()
    return values


def _moment(text: str) -> str:
    return _ZONE.sub(r"\1:\2", _SPACE.sub("T", text))


def _duration(value: tuple[int, int]) -> str:
    return f"PT{_seconds(*value)}S"


def _interval(value: pa.MonthDayNano) -> str:
    return f"P{value.months}M{value.days}DT{_seconds(value.nanoseconds, _SECOND['ns'])}S"


def _seconds(count: int, per_second: int) -> str:
    seconds, rest = divmod(abs(count), per_second)
    fraction = f".{rest:0{len(str(per_second)) - 1}}".rstrip("0") if rest else ""
    return f"{'-' if count < 0 else ''}{seconds}{fraction}"


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


_BY_VALUE: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any], str]], ...] = (
    (pa.types.is_binary, _base64),
    (pa.types.is_large_binary, _base64),
    (pa.types.is_fixed_size_binary, _base64),
    (pa.types.is_binary_view, _base64),
    (pa.types.is_duration, _duration),
    (pa.types.is_interval, _interval),
    (pa.types.is_temporal, _moment),
)
