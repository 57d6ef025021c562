"""Rows as a file, of the kind that its name says: .parquet, .csv or .jsonl.

CSV is UTF-8 with one line of column names. A field is what JSON lines have in its place: text stands in
double quotes, inner ones doubled, and so do lists and objects, as JSON; numbers and booleans do not; null,
and what a row has not, is an empty field, empty text is "".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from datapruner.errors import UsageError
from datapruner.rows import json_form
from datapruner.rows.json_text import members
from datapruner.system.files import publishing
from datapruner.system.panics import contained

SUFFIXES = (".parquet", ".csv", ".jsonl")
_BATCH = 2048

OnRows = Callable[[int], None]


def unheard(_: int) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The same rows in two forms, each made when it is asked for.

    tables: columns, a few thousand rows at a time, all with one schema. lines: an object of JSON for each
    row, with as many of the columns as the row has. names: the columns in order.
    """

    tables: Callable[[], Iterator[pa.Table]]
    lines: Callable[[], Iterator[bytes]]
    names: Callable[[], Sequence[str]]

    @classmethod
    def of(cls, table: pa.Table, name: str) -> Rows:
        """The rows of a table; `name` is what errors call it."""
        return cls(lambda: iter([table]), lambda: _lines(table, name), lambda: table.column_names)


def plain_table(frame: pl.DataFrame) -> pa.Table:
    """The frame with Arrow's plain types: string, not string_view."""
    table = frame.to_arrow()
    views = [pa.types.is_large_string(f.type) or pa.types.is_string_view(f.type) for f in table.schema]
    kinds = [pa.string() if is_view else f.type for is_view, f in zip(views, table.schema, strict=True)]
    return table.cast(pa.schema(list(zip(table.column_names, kinds, strict=True))))


def _lines(table: pa.Table, name: str) -> Iterator[bytes]:
    for batch in table.to_batches(max_chunksize=_BATCH):
        yield from json_form.lines(batch, name)


def check_target(path: Path) -> None:
    """Find out before the work starts that `path` cannot be written. Raises UsageError."""
    if path.suffix not in SUFFIXES:
        raise UsageError(
            f"{path}: cannot write {path.suffix or 'a file without a suffix'}",
            remedy=f"one of {', '.join(SUFFIXES)}",
        )
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist", remedy="create it first")
    if path.is_dir():
        raise UsageError(f"{path} is a folder", remedy="name a file")


@contained()
def write(path: Path, rows: Rows, on_rows: OnRows = unheard) -> int:
    """Write the rows; how many. Published by rename.

    `on_rows` is told now and then how many are written, and may raise to stop it. Raises UsageError when the
    file cannot be written.
    """
    check_target(path)
    try:
        with publishing(path) as file:
            if path.suffix == ".parquet":
                return _write_parquet(file, rows.tables(), on_rows)
            if path.suffix == ".csv":
                return _write_lines(file, _csv(rows), on_rows) - 1
            return _write_lines(file, rows.lines(), on_rows)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror or error}", remedy="choose another place"
        ) from error


def _write_parquet(file: BinaryIO, tables: Iterator[pa.Table], on_rows: OnRows) -> int:
    first = next(tables)
    count = 0
    with pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
        for table in chain([first], tables):
            writer.write_table(table)
            count += table.num_rows
            on_rows(count)
    return count


def _write_lines(file: BinaryIO, lines: Iterable[bytes], on_rows: OnRows) -> int:
    count = 0
    for line in lines:
        file.write(line + b"\n")
        count += 1
        if count % _BATCH == 0:
            on_rows(count)
    return count


def _csv(rows: Rows) -> Iterator[bytes]:
    """The line of names, then one for each row."""
    names = rows.names()
    yield ",".join(map(_in_quotes, names)).encode()
    for line in rows.lines():
        found = members(line)
        yield ",".join([_field(found.get(name, "null")) for name in names]).encode()


def _field(value: str) -> str:
    """A value of JSON as a field."""
    match value[0]:
        case '"':
            return _in_quotes(orjson.loads(value))
        case "[" | "{":
            return _in_quotes(value)
    return "" if value == "null" else value


def _in_quotes(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
