"""What the readers make of files, and rows to write into them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from datapruner.input.readers import Record, open_sources
from datapruner.input.shapes import Limits

ROWS = [{"instruction": f"question {i}", "output": f"answer {i} äöü 😀"} for i in range(5)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
PACKERS = {"": lambda data: data, ".gz": gzip.compress, ".zst": zstandard.compress}


def records(source: Any, limits: Limits | None = None) -> list[Record]:
    return [
        record
        for item in open_sources(source)
        for batch in item.batches(limits or Limits(), typed=item.schema is not None)
        for record in batch.records
    ]


def rows(source: Any) -> list[Any]:
    return [record.row for record in records(source)]


def faults(source: Any, limits: Limits | None = None) -> list[tuple[int, str]]:
    found = records(source, limits)
    return [(record.position, record.fault.code) for record in found if record.fault is not None]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def pieces(content: bytes, size: int) -> Iterator[bytes]:
    return (content[i : i + size] for i in range(0, len(content), size))
