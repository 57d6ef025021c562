"""Arrow columns as JSON, a whole column at a time: the form that values have wherever rows leave as JSON or,
made of it, as CSV (`formats`).

    whole numbers, decimals      numbers, all digits: of a type's values all are numbers or none
    floats                       numbers, as few digits as give the value again in its own precision;
                                 "NaN", "Infinity" and "-Infinity" are text
    dates, times                 ISO 8601 text, with "Z" or the offset where the type has a zone; "infinity",
                                 "-infinity" for what DuckDB calls so, "<value out of range: ...>" beyond the
                                 year 32767
    durations, intervals         ISO 8601 durations, such as PT1.5S and P1M2DT0.5S
    binaries                     base64 text
    lists                        arrays
    structs                      objects, with null for a field that is null
    maps                         arrays of {"key": ..., "value": ...}
    unions                       the value
    dictionaries, run ends       their values
    extension types              what they store

Notable choices:
- nothing here hands columns to another library, of which each has types that it does not know;
- no file is read, such as one of time zones, for what is in UTC: the process of a query may open none;
- rows are taken so few at a time that their JSON is a few MiB: a field's name stands once in a column and
  once for each value in JSON.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from datapruner.errors import InputError
from datapruner.rows.originals import entries, is_list, lengths

TEXT = pa.large_string()


@dataclass(frozen=True, slots=True)
class Form:
    """What numbers become: `words` are NaN, infinity and minus infinity, and decimals may be text."""

    words: tuple[str, str, str]
    decimals_as_text: bool


#: Valid JSON, as rows leave.
IN_JSON = Form(('"NaN"', '"Infinity"', '"-Infinity"'), decimals_as_text=False)
#: The rows that a corpus keeps, of which columns are made again: a number in JSON is a double there.
IN_CORPUS = Form(("NaN", "Infinity", "-Infinity"), decimals_as_text=True)

_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
#: What Arrow says instead of a date or time that it cannot.
_BEYOND = "<value out of range"
#: Bytes of JSON that are made at a time, about.
_PIECE = 8 << 20


def lines(batch: pa.RecordBatch, name: str, form: Form = IN_JSON) -> Iterator[bytes]:
    """Each row as one line of JSON. Raises InputError, naming `name` and the column, for a type that has no
    place in it."""
    for piece in _pieces(batch):
        rows = _objects(piece.schema.names, _columns(piece, name, form), piece.num_rows)
        yield from rows.cast(pa.large_binary()).to_pylist()


def columns(batch: pa.RecordBatch, name: str) -> Iterator[Sequence[pa.Array]]:
    """The JSON of the values by column, for some rows at a time. Raises InputError as `lines` does."""
    return (_columns(piece, name, IN_JSON) for piece in _pieces(batch) if piece.num_rows)


def arrays(columns: Sequence[pa.Array]) -> bytes:
    """Rows of these columns of JSON as arrays, with commas between them."""
    rows = _around(pc.binary_join_element_wise(*columns, pa.scalar(",", TEXT)), "[", "]")
    return ",".join(rows.to_pylist()).encode()


def _columns(batch: pa.RecordBatch, name: str, form: Form) -> list[pa.Array]:
    return [_column(batch, number, name, form) for number in range(batch.num_columns)]


def _column(batch: pa.RecordBatch, number: int, name: str, form: Form) -> pa.Array:
    try:
        return fragments(batch.column(number), form)
    except (pa.ArrowException, ValueError) as error:
        raise InputError(
            f"{name}: column '{batch.schema.names[number]}' cannot be written as JSON: {error}",
            remedy="drop the column, or cast it to text",
            field=batch.schema.names[number],
        ) from error


def fragments(array: pa.Array, form: Form = IN_JSON) -> pa.Array:
    """Each value as JSON, "null" for null. Raises ArrowException for a type that JSON has no place for."""
    text = _fragments(_plain(array), form)
    return pc.fill_null(text.cast(TEXT), "null") if text.null_count else text.cast(TEXT)


def _fragments(array: pa.Array, form: Form) -> pa.Array:
    """`fragments` with null for null, of an array that is `_plain`."""
    kind = array.type
    if pa.types.is_struct(kind):
        parts = [fragments(child, form) for child in array.flatten()]
        return _where(array, _objects([field.name for field in kind], parts, len(array)))
    if pa.types.is_map(kind):
        return _where(array, _arrays(array, fragments(entries(array), form)))
    if is_list(kind):
        return _where(array, _arrays(array, fragments(array.flatten(), form)))
    if pa.types.is_null(kind):
        return pa.nulls(len(array), TEXT)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return array.cast(TEXT)
    if pa.types.is_floating(kind):
        return _floats(array, form)
    if _is_text(kind):
        return _quoted(array)
    if pa.types.is_decimal(kind):
        return _in_marks(_decimals(array)) if form.decimals_as_text else _decimals(array)
    if pa.types.is_date(kind) or pa.types.is_time(kind) or pa.types.is_timestamp(kind):
        return _in_marks(_moments(array))
    if pa.types.is_union(kind) and kind.mode == "sparse":
        return _chosen(array, form)
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


def _floats(array: pa.Array, form: Form) -> pa.Array:
    """Shortest digits that give the value again, told from whole numbers by a point or an exponent."""
    text = array.cast(TEXT)
    whole = pc.invert(pc.match_substring_regex(text, "[.en]"))
    text = pc.if_else(whole, _around(text, "", ".0"), text)
    if pc.all(pc.is_finite(array)).as_py() is False:
        array = array.cast(pa.float64())
        nan, infinite, negative = (pa.scalar(word, TEXT) for word in form.words)
        sign = pc.if_else(pc.less(array, 0), negative, infinite)
        text = pc.if_else(pc.is_nan(array), nan, pc.if_else(pc.is_inf(array), sign, text))
    return text


def _is_text(kind: pa.DataType) -> bool:
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_kind(kind) for is_kind in texts)


def _decimals(array: pa.Array) -> pa.Array:
    """All digits; without an exponent as far as those of the type go."""
    kind, text = array.type, array.cast(TEXT)
    if kind.scale <= kind.precision and pc.any(pc.match_substring(text, "E-")).as_py():
        return pa.array([None if v is None else format(v, "f") for v in array.to_pylist()], TEXT)
    return text


def _moments(array: pa.Array) -> pa.Array:
    """Dates and times as ISO 8601 has them."""
    kind = array.type
    text = _local(array).cast(TEXT)
    if pa.types.is_timestamp(kind):
        known = pc.invert(pc.starts_with(text, _BEYOND))
        if kind.tz is not None and not _is_utc(kind):
            zoned = pc.replace_substring_regex(array.cast(TEXT), r"([+-]\d\d)(\d\d)$", r"\1:\2")
            text = pc.if_else(known, zoned, text)  # beyond, what has a zone is another time in Arrow
        said = pc.replace_substring(text, " ", "T", max_replacements=1)
        if _is_utc(kind):
            said = _around(said, "", "Z")
        text = pc.if_else(known, said, text)
    numbers = array.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    for number, word in _words(kind):
        is_it = pc.equal(numbers, pa.scalar(number, numbers.type))
        if pc.any(is_it).as_py():
            text = pc.if_else(is_it, pa.scalar(word, TEXT), text)
    return text


def _local(array: pa.Array) -> pa.Array:
    """Timestamps as those of UTC without a zone, others as they are."""
    return array.view(pa.timestamp(array.type.unit)) if pa.types.is_timestamp(array.type) else array


def _is_utc(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) and kind.tz in ("UTC", "Z", "Etc/UTC"))


def _words(kind: pa.DataType) -> Sequence[tuple[int, str]]:
    """Values of a type of dates or times that Arrow has no text for, and DuckDB has."""
    if kind == pa.date32():
        return (2**31 - 1, "infinity"), (1 - 2**31, "-infinity")
    if pa.types.is_timestamp(kind) and kind.unit != "ns":  # of which the last are times like others in Arrow
        return (2**63 - 1, "infinity"), (1 - 2**63, "-infinity")
    if pa.types.is_time(kind):
        per_second = _SECOND[kind.unit]
        fraction = "." + str(per_second)[1:] if per_second > 1 else ""
        return ((24 * 3600 * per_second, f"24:00:00{fraction}"),)
    return ()


def _chosen(array: pa.UnionArray, form: Form) -> pa.Array:
    kind = array.type
    parts = [fragments(array.field(number), form) for number in range(kind.num_fields)]
    places = pc.index_in(array.type_codes, pa.array(kind.type_codes, pa.int8()))
    return pc.choose(places, *parts)


def _values(array: pa.Array) -> list[Any]:
    """Values to convert one by one: as Python has them, but the number of a duration with its unit."""
    kind = array.type
    if pa.types.is_duration(kind):
        return [None if v is None else (v, _SECOND[kind.unit]) for v in array.cast(pa.int64()).to_pylist()]
    found: list[Any] = array.to_pylist()
    return found


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
)


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The rows in batches of which each is about `_PIECE` bytes of JSON at the most, or one row."""
    if batch.num_rows <= 1 or sum(map(_weight, batch.columns)) <= _PIECE:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _pieces(batch.slice(0, half))
    yield from _pieces(batch.slice(half))


def _weight(array: pa.Array) -> int:
    """About how many bytes `fragments` are: names and repeated values are what counts."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _weight(array.storage)
    if pa.types.is_dictionary(kind) and _is_text(kind.value_type):
        return len(array) * (pc.max(pc.binary_length(array.dictionary)).as_py() or 0)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _weight(_plain(array))
    if pa.types.is_struct(kind):
        names = len(array) * sum(len(field.name) + 4 for field in kind)
        return names + sum(map(_weight, array.flatten()))
    if pa.types.is_map(kind):
        return _weight(entries(array))
    if is_list(kind):
        return _weight(array.flatten())
    return int(2 * array.nbytes)
