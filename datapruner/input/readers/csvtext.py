"""CSV as a stream of records: every value stays the text that it is in the file.

Types are not guessed: "007" and "1.0" must come out again as they went in. The header names the columns;
a row with another number of fields is a fault, not shifted or padded. A file that was cut inside an unquoted
last field cannot be told from one whose last line has no line break.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator

import pyarrow as pa

from datapruner.errors import InputError
from datapruner.input.readers.records import BATCH_ROWS, Batch, Record, truncated
from datapruner.input.readers.streams import CHUNK, BrokenStreamError
from datapruner.input.shapes import Limits, Rejection, too_large

_CUT = truncated("the file ends inside this row")


def read_header(head: bytes, name: str) -> list[str]:
    """The column names, from the first chunk of a file.

    Raises InputError for a header that is empty or names a column twice.
    """
    try:
        header = next(csv.reader(_Lines(iter([head]), Limits()), strict=True), None)
    except csv.Error as error:
        raise InputError(f"{name}: the CSV header cannot be read: {error}") from error
    if not header:
        raise InputError(f"{name}: the CSV file has no header", remedy="the first line must name the columns")
    check_unique(header, name)
    return header


def check_unique(columns: list[str], name: str) -> None:
    """Raise InputError when a column is named twice."""
    seen: set[str] = set()
    for column in columns:
        if column in seen:
            raise InputError(
                f"{name}: the column '{column}' appears twice", remedy="give each column its own name"
            )
        seen.add(column)


def read_csv(chunks: Iterator[bytes], limits: Limits) -> Iterator[Batch]:
    """Rows under the header, as string columns."""
    # Process-wide in the csv module, which offers no other way; raising it does no harm to others.
    csv.field_size_limit(max(csv.field_size_limit(), limits.max_row_bytes))
    lines = _Lines(chunks, limits)
    reader = csv.reader(lines, strict=True)
    header = next(reader)
    records: list[Record] = []
    rows: list[list[str]] = []
    size = 0
    while True:
        start = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            break
        except BrokenStreamError as error:
            records.append(Record.faulty(start, truncated(str(error))))
            break
        except csv.Error as error:
            cut = "unexpected end of data" in str(error)
            records.append(Record.faulty(start, _CUT if cut else _broken(error, limits)))
            continue
        if not fields:
            continue  # a blank line is not a row
        weight = sum(map(len, fields))
        fault = _check(fields, header, weight, limits)
        if fault is not None and len(fields) < len(header) and lines.open_end:
            fault = _CUT
        if fault is not None:
            records.append(Record.faulty(start, fault, ",".join(fields)[:200]))
            continue
        records.append(Record(start, dict(zip(header, fields, strict=True))))
        rows.append(fields)
        size += weight
        if len(rows) >= BATCH_ROWS or size >= CHUNK:
            yield Batch(records, _table(header, rows))
            records, rows, size = [], [], 0
    yield Batch(records, _table(header, rows))


def _check(fields: list[str], header: list[str], weight: int, limits: Limits) -> Rejection | None:
    if weight > limits.max_row_bytes:
        return too_large(weight, limits)
    if len(fields) != len(header):
        return Rejection(
            "wrong_field_count",
            None,
            f"{len(fields)} fields where the header has {len(header)}",
            "quote fields that hold commas or line breaks",
        )
    for name, value in zip(header, fields, strict=True):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return Rejection(
                    "invalid_unicode",
                    name,
                    f"'{name}' holds bytes that are not UTF-8",
                    "write the file as UTF-8",
                )
    return None


def _broken(error: csv.Error, limits: Limits) -> Rejection:
    if "field larger" in str(error):
        return too_large(limits.max_row_bytes + 1, limits)
    return Rejection("broken_csv", None, f"not CSV: {error}", "double the quotes inside quoted fields")


def _table(header: list[str], rows: list[list[str]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else [[] for _ in header]
    return pa.RecordBatch.from_arrays([pa.array(column, pa.string()) for column in columns], header)


class _Lines:
    """Lines with their line breaks, which quoted fields keep.

    A line over the row limit is cut just above it, enough for the row to be refused. `open_end` is true once
    a last line without a line break has been given. Raises BrokenStreamError.
    """

    def __init__(self, chunks: Iterator[bytes], limits: Limits) -> None:
        self.open_end = False
        self._lines = self._read(chunks, limits.max_row_bytes)

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def _read(self, chunks: Iterator[bytes], limit: int) -> Iterator[str]:
        carry = b""
        first = True
        broken: BrokenStreamError | None = None
        while True:
            try:
                chunk = next(chunks, None)
            except BrokenStreamError as error:
                broken, chunk = error, None
            if chunk is None:
                break
            if first:
                chunk, first = chunk.removeprefix(codecs.BOM_UTF8), False
            lines = (carry + chunk).split(b"\n")
            carry = lines.pop()[: limit + 1]
            for line in lines:
                yield (line[: limit + 1] + b"\n").decode(errors="surrogateescape")
        if broken is not None:
            raise broken
        if carry:
            self.open_end = True
            yield carry.decode(errors="surrogateescape")
