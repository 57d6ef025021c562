"""What rows are written as: each format once, with its name, suffix, media type and writer.

Whatever names one of these, a command's option, a field of the HTTP interface or an Accept header, reads it
here; a new format is its writer and a line of `FORMATS`, with its name among those below that it is offered
as. Values have one form in all that is text (`json_form`, `csv_form`).

JSON is one document, with what is said of the rows and `rows`, an array of the values of each; JSON lines
have an object for each row.

Notable choice: this is all that clients need to know of formats, so the libraries that write come late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeVar, get_args

import orjson

if TYPE_CHECKING:
    import pyarrow as pa

    from datapruner.rows.writable import Rows

FileFormat = Literal["parquet", "csv", "jsonl"]
"""Of files that hold rows."""
AnswerFormat = Literal["json", "arrow", FileFormat]
"""Of the rows that SQL gives."""
ExportFormat = Literal[FileFormat, "plain-parquet", "plain-csv", "plain-jsonl"]
"""Of what is left of a run: everything, masks included, or plain, the kept rows alone as they came."""
TrainerFormat = Literal[
    "trl", "transformers", "axolotl", "llamafactory", "ms-swift", "verl", "megatron", "automodel"
]
"""Of what is left of a run as a trainer takes it: those of `outputs.trainers.registry`."""
AnyExportFormat = Literal[ExportFormat, TrainerFormat]
TooLong = Literal["cut", "drop"]
"""What becomes of a row over the limit of a trainer's rows: its end goes, or all of it."""

_PLAIN = "plain-"

Name = TypeVar("Name", FileFormat, AnswerFormat)
OnRows = Callable[[int], None]
_ROWS_BETWEEN = 2048  # of telling how many are written


def unheard(_: int) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write rows: `write` puts them on a binary stream and says how many they were.

    It tells its third argument now and then how many are written, which may raise to stop it. It raises
    InputError or ArrowException for a type that the format has no place for. `is_text` is what people read.
    """

    name: str
    suffix: str
    media_type: str
    is_text: bool
    write: Callable[[BinaryIO, Rows, OnRows], int]


def _parquet(file: BinaryIO, rows: Rows, on_rows: OnRows) -> int:
    return write_parquet(file, rows.tables(), on_rows)


def write_parquet(file: BinaryIO, tables: Iterator[pa.Table], on_rows: OnRows = unheard) -> int:
    """Put tables, at least one, on a binary stream; how many rows they had."""
    import pyarrow.parquet as pq

    first = next(tables)
    with pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
        return _write_tables(writer.write_table, _made_ahead(chain([first], tables)), on_rows)


def _made_ahead(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The tables, each made while the one before is written."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, tables, None)
        while (table := coming.result()) is not None:
            coming = thread.submit(next, tables, None)
            yield table


def _arrow(file: BinaryIO, rows: Rows, on_rows: OnRows) -> int:
    import pyarrow as pa

    tables = rows.tables()
    first = next(tables)
    with pa.ipc.new_stream(file, first.schema) as stream:
        return _write_tables(stream.write_table, chain([first], tables), on_rows)


def _write_tables(write: Callable[[pa.Table], None], tables: Iterable[pa.Table], on_rows: OnRows) -> int:
    count = 0
    for table in tables:
        write(table)
        count += table.num_rows
        on_rows(count)
    return count


def _json_lines(file: BinaryIO, rows: Rows, on_rows: OnRows) -> int:
    count = 0
    for line in rows.lines():
        file.write(line + b"\n")
        count += 1
        if count % _ROWS_BETWEEN == 0:
            on_rows(count)
    return count


def _csv(file: BinaryIO, rows: Rows, on_rows: OnRows) -> int:
    from datapruner.rows import csv_form

    file.write(csv_form.header(rows.names()))
    count = 0
    for columns in rows.columns():
        file.write(csv_form.lines(columns))
        count += len(columns[0])
        on_rows(count)
    return count


def _json(file: BinaryIO, rows: Rows, on_rows: OnRows) -> int:
    from datapruner.rows import json_form

    about = orjson.dumps(rows.about)[1:-1]
    file.write(b"{" + about + (b"," if about else b"") + b'"rows":[')
    count = 0
    for columns in rows.columns():
        file.write((b"," if count else b"") + json_form.arrays(columns))
        count += len(columns[0])
        on_rows(count)
    file.write(b"]}\n")
    return count


FORMATS = {
    each.name: each
    for each in (
        Format("json", ".json", "application/json", True, _json),
        Format("arrow", ".arrows", "application/vnd.apache.arrow.stream", False, _arrow),
        Format("parquet", ".parquet", "application/vnd.apache.parquet", False, _parquet),
        Format("csv", ".csv", "text/csv", True, _csv),
        Format("jsonl", ".jsonl", "application/x-ndjson", True, _json_lines),
    )
}
"""All formats, by name."""

FILES: tuple[FileFormat, ...] = get_args(FileFormat)
ANSWERS: tuple[AnswerFormat, ...] = get_args(AnswerFormat)
EXPORTS: tuple[ExportFormat, ...] = get_args(ExportFormat)


def suffixes(names: Sequence[Name]) -> dict[str, Name]:
    """The formats of these names by the suffix of their files."""
    return {FORMATS[name].suffix: name for name in names}


def exported(name: str) -> Format:
    """How an export of this name, one of `EXPORTS`, is written."""
    return FORMATS[name.removeprefix(_PLAIN)]


def is_plain(name: str) -> bool:
    """Whether an export of this name has the kept rows alone."""
    return name.startswith(_PLAIN)


def export_with(suffix: str, *, plain: bool) -> ExportFormat:
    """The export that is a file with this suffix, one of those of `FILES`."""
    return next(name for name in EXPORTS if exported(name).suffix == suffix and is_plain(name) == plain)


def listed(names: Sequence[Name]) -> str:
    """The suffixes of these formats, as people say them."""
    *others, last = suffixes(names)
    return f"{', '.join(others)} or {last}"
