"""Typed columns for rows that are kept as JSON text.

Types are those that all rows of a corpus share, so that any choice of its rows has the same schema. A key
that an object lacks is null; everything else comes out as it is in the row:

    whole numbers               int64, or uint64 where some are beyond; JSON text where some are beyond that
    numbers                     double; JSON text where there is a whole number beyond 2**53 among them
    an object                   a struct of all keys that such an object has in any row
    an object of over 200 keys  JSON text: it is a dictionary, not a record
    an object without keys,
    values of several types,
    what is nested too deep     JSON text

Notable choice: DuckDB finds the structure, Arrow makes the columns: it takes a missing key for null and
refuses a value that does not fit, where DuckDB takes both for null or refuses both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import orjson
import polars as pl
import pyarrow as pa

from datapruner.errors import InputError

_MAX_KEYS = 200
_MAX_DEPTH = 32
_EXACT = 2**53  # whole numbers up to here have a place among doubles
_ELEMENT = 0  # in a path, an element of a list; keys are text

# DuckDB holds what it has seen of every row, so of rows of one structure it is shown the first.
_STRUCTURE = """
SELECT json_structure(('[' || coalesce(string_agg(json, ',' ORDER BY first), '') || ']')::JSON) -> 0
FROM (SELECT arg_min(json, row) AS json, min(row) AS first FROM originals GROUP BY json_structure(json::JSON))
"""

Path = tuple[str | int, ...]
_Convert = Callable[[Any], Any]

# Rows with a whole number of so many digits, in which alone there can be one beyond 2**53.
_HAS_LONG_NUMBER = "(^|[^0-9.])[0-9]{16}"


@dataclass(slots=True)
class _Range:
    """Whole numbers beyond 2**53 at one place."""

    low: int = 0
    high: int = 0

    def add(self, value: int) -> None:
        self.low, self.high = min(self.low, value), max(self.high, value)


class Derivation:
    """The columns of all rows in the table `originals`, by its column `json`.

    Raises InputError when a row is nested so deeply that its structure cannot be told.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        found, long = _structure(connection)
        ranges: dict[Path, _Range] = {}
        for text in long:
            _measure(json.loads(text), (), ranges)
        columns = {name: _derive(kind, (name,), ranges) for name, kind in found.items()}
        self.schema = pa.schema([pa.field(name, kind) for name, (kind, _) in columns.items()])
        self._type = pa.struct(list(self.schema))
        self._are_texts = bool(columns) and all(map(pa.types.is_string, self.schema.types))
        self._convert = {name: convert for name, (_, convert) in columns.items() if convert is not None}

    def columns(self, rows: Sequence[int], texts: Sequence[bytes]) -> pa.RecordBatch:
        """The columns of these rows. Raises InputError, naming the row, for a value that does not fit."""
        try:
            made = self._made(texts)
        except (pa.ArrowException, TypeError, ValueError, OverflowError, RecursionError):
            made = pa.concat_arrays([self._one(row, text) for row, text in zip(rows, texts, strict=True)])
        return pa.RecordBatch.from_struct_array(made).replace_schema_metadata(None)

    def _made(self, texts: Sequence[bytes]) -> pa.StructArray:
        read = _exactly if self._convert else _quickly
        values = [read(text) for text in texts]
        for name, convert in self._convert.items():
            for value in values:
                if name in value:
                    value[name] = convert(value[name])
        if not self._are_texts:
            return pa.array(values, self._type)
        # As most rows are; pyarrow would import pandas, to ask whether they are its.
        columns = [
            pl.Series([row.get(name) for row in values], dtype=pl.String) for name in self.schema.names
        ]
        texts = [column.to_arrow().cast(pa.string()) for column in columns]
        return pa.StructArray.from_arrays(texts, fields=list(self.schema))

    def _one(self, row: int, text: bytes) -> pa.StructArray:
        try:
            return self._made([text])
        except (pa.ArrowException, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InputError(
                f"row {row} does not fit the columns of the other rows: {error}",
                remedy="write .jsonl, which has each row as it came",
            ) from error


def _structure(connection: duckdb.DuckDBPyConnection) -> tuple[dict[str, Any], list[str]]:
    """The structure of all rows together, and the rows that may have long numbers, if numbers matter."""
    try:
        [(text,)] = connection.execute(_STRUCTURE).fetchall()
    except duckdb.Error as error:
        raise InputError(
            f"the rows have no columns: {' '.join(str(error).split())}",
            remedy="write .jsonl, which needs none",
        ) from error
    found = orjson.loads(text or "{}")
    if not isinstance(found, dict):  # every row is an empty object
        return {}, []
    if not any(f'"{kind}"' in text for kind in ("UBIGINT", "BIGINT", "HUGEINT", "DOUBLE")):
        return found, []
    long = "SELECT json FROM originals WHERE regexp_matches(json, ?)"
    return found, [json for (json,) in connection.execute(long, [_HAS_LONG_NUMBER]).fetchall()]


def _quickly(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # NaN and infinity, which rows of tables may have
        return _exactly(text)


def _exactly(text: bytes) -> Any:
    """With all digits of whole numbers, which orjson makes doubles from 64 bits on."""
    return json.loads(text)


def _measure(value: Any, path: Path, ranges: dict[Path, _Range]) -> None:
    """Note the whole numbers beyond 2**53 in a row."""
    if isinstance(value, dict):
        for key, item in value.items():
            _measure(item, (*path, key), ranges)
    elif isinstance(value, list):
        for item in value:
            _measure(item, (*path, _ELEMENT), ranges)
    elif isinstance(value, int) and abs(value) > _EXACT:
        ranges.setdefault(path, _Range()).add(value)


def _derive(kind: Any, path: Path, ranges: dict[Path, _Range]) -> tuple[pa.DataType, _Convert | None]:
    """The Arrow type of a structure, and what makes its values of those in JSON where they differ."""
    if len(path) > _MAX_DEPTH:
        return _JSON
    if isinstance(kind, list):
        item, convert = _derive(kind[0], (*path, _ELEMENT), ranges)
        return pa.list_(item), None if convert is None else _each(convert)
    if isinstance(kind, dict):
        if not kind or len(kind) > _MAX_KEYS:
            return _JSON
        parts = {key: _derive(part, (*path, key), ranges) for key, part in kind.items()}
        converts = {key: convert for key, (_, convert) in parts.items() if convert is not None}
        made = pa.struct([(key, part) for key, (part, _) in parts.items()])
        return made, _fields(converts) if converts else None
    found = ranges.get(path, _Range())
    match kind:
        case "UBIGINT" | "BIGINT" | "HUGEINT" if found.low >= -(2**63) and found.high < 2**63:
            return pa.int64(), None
        case "UBIGINT":
            return pa.uint64(), None
        case "DOUBLE" if path not in ranges:
            return pa.float64(), None
        case "BOOLEAN":
            return pa.bool_(), None
        case "VARCHAR" | "NULL":
            return pa.string(), None
    return _JSON


def _each(convert: _Convert) -> _Convert:
    return lambda values: None if values is None else [convert(value) for value in values]


def _fields(converts: dict[str, _Convert]) -> _Convert:
    def convert(value: Any) -> Any:
        if value is None:
            return None
        return value | {key: change(value[key]) for key, change in converts.items() if key in value}

    return convert


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


_JSON: tuple[pa.DataType, _Convert] = (pa.string(), _json)
