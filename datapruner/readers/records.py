"""What every reader yields: batches of records, and the source they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from datapruner.formats import Limits, Rejection

#: Rows of a batch where the source itself has no smaller unit; also what a corpus stores per write.
BATCH_ROWS = 4096


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
