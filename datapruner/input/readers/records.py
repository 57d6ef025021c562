"""What every reader yields: batches of records, and the source they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from datapruner.errors import InputError
from datapruner.input.shapes import Limits, Rejection

#: Code of the one fault that a source has when it ends, or is damaged, before its end. What was whole before
#: that point is read, whatever the format; where nothing was, the file cannot be read.
TRUNCATED = "truncated_stream"
#: Rows of a batch where the source itself has no smaller unit; also what a corpus stores per write.
BATCH_ROWS = 4096


class NothingWholeError(InputError):
    """A file that is cut off, or damaged, before its first row."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}; no row before this point is whole", remedy="get the file again")


def truncated(reason: str) -> Rejection:
    """The fault of a source that breaks off."""
    return Rejection(
        TRUNCATED,
        None,
        f"{reason}; the rows before this point were read",
        "get the file again, or go on with the rows that were read",
    )


class Record(NamedTuple):
    """One row of the input, or the reason why there is none.

    `position` is the 1-based line in a text file, else the 1-based record number. `text` is the row's
    own JSON text on one line, where the source has one.
    """

    position: int
    row: Any
    text: bytes | None = None
    fault: Rejection | None = None
    excerpt: str | None = None

    @classmethod
    def faulty(cls, position: int, fault: Rejection, excerpt: str | None = None) -> Record:
        return cls(position, None, None, fault, excerpt)


@dataclass(slots=True)
class Batch:
    """Records in input order, to be gone through once.

    `table` has one row per record without a fault, in the same order, when the source is read typed; it
    is None when the records carry JSON text instead.
    """

    records: Iterable[Record]
    table: pa.RecordBatch | None = None


class Source(ABC):
    """One file, dataset or sequence of rows.

    `schema` is the Arrow schema of a typed source, None for JSON-like ones. `bytes_done` and
    `bytes_total` count bytes as stored (compressed), `bytes_total` is None when nobody knows.
    """

    name: str
    path: Path | None = None
    schema: pa.Schema | None = None
    bytes_done: int = 0
    readable: bool = True

    @property
    def bytes_total(self) -> int | None:
        return self.path.stat().st_size if self.path is not None else None

    @abstractmethod
    def batches(self, limits: Limits, *, typed: bool) -> Iterator[Batch]:
        """Stream the rows; `typed` asks for tables, else each record carries its JSON text."""


class BadFile(Source):
    """A file of a folder that cannot be read at all: one fault, so that the other files survive."""

    readable = False

    def __init__(self, name: str, path: Path, fault: Rejection) -> None:
        self.name, self.path, self.fault = name, path, fault

    def batches(self, limits: Limits, *, typed: bool) -> Iterator[Batch]:
        yield Batch([Record.faulty(1, self.fault)])
