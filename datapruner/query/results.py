"""The rows of a query as a document in one of the formats that there are (`datapruner.rows.formats`).

Columns of the same name get a number in all of them. An Arrow schema, and that in a Parquet file, has
DuckDB's names of the types in its metadata, as a JSON array under `types`; JSON has them in `columns`.

This runs in the process of the query (`child.py`): how long an answer takes to write, and how large it gets,
is for whoever wrote the statement to say. It imports little, and a few rows at a time are Python objects.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa

from datapruner.errors import InputError
from datapruner.rows.formats import FORMATS, AnswerFormat, unheard
from datapruner.rows.writable import Rows

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


def write(result: QueryResult, kind: AnswerFormat, most: int) -> memoryview:
    """The result as a document of that format, of at most `most` bytes.

    Raises TooLongError, and UnwritableError when a type has no place in the format.
    """
    sink = _Bounded(most)
    write_to(sink, result, kind)
    return sink.getbuffer()


def write_to(file: BinaryIO, result: QueryResult, kind: AnswerFormat) -> None:
    """Write the result in that format. Raises UnwritableError when a type has no place in it."""
    try:
        FORMATS[kind].write(file, _rows(result), unheard)
    except (InputError, pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise UnwritableError(str(error)) from error


def _rows(result: QueryResult) -> Rows:
    table = result.table.rename_columns(apart(result.table.column_names))
    columns = [
        {"name": name, "type": kind} for name, kind in zip(table.column_names, result.types, strict=True)
    ]
    about = {"columns": columns, "truncated": result.truncated, "seconds": result.seconds}
    table = table.replace_schema_metadata({_TYPES: json.dumps(result.types)})
    return Rows.of(table, "the result", about)


def read(document: bytes, *, truncated: bool, seconds: float) -> QueryResult:
    """The result that was written as Arrow. Raises ValueError, as Arrow does, for anything else."""
    try:
        table = pa.ipc.open_stream(document).read_all()
    except OSError as error:  # of one that was cut
        raise ValueError(str(error)) from error
    metadata = table.schema.metadata or {}
    types = json.loads(metadata.get(_TYPES.encode(), b"null"))
    if not isinstance(types, list) or len(types) != table.num_columns:
        raise ValueError("the types of the columns are missing")
    return QueryResult(table.replace_schema_metadata(None), truncated, seconds, types)


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
