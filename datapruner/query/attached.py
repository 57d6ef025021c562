"""The files that a query reads, known to DuckDB by number and not by path (`child.py` says why)."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from typing import Any

from fsspec import AbstractFileSystem

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class AttachedFile:
    """One open file as DuckDB reads it. DuckDB's threads share it: seek and read are two calls, so each
    thread has a position of its own."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.local = threading.local()

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        assert whence == os.SEEK_SET, whence
        self.local.position = position
        return position

    def tell(self) -> int:
        return int(self.local.position)

    def read(self, size: int) -> bytes:
        data = os.pread(self.descriptor, size, self.local.position)
        self.local.position += len(data)
        return data

    def close(self) -> None:
        """The descriptor lives as long as the process."""


class AttachedFiles(AbstractFileSystem):  # type: ignore[misc]
    """Files known by number only, `attached://0`. After `closed` is set none can be opened but those of
    `tables`, to be read."""

    protocol = "attached"
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.descriptors: dict[str, int] = {}
        self.tables: list[str] = []
        self.closed = False

    def add(self, path: str) -> str:
        name = f"{self.protocol}://{len(self.descriptors)}"
        self.descriptors[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return name

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        if not self._is_open(path):
            raise FileNotFoundError(path)
        return {"name": path, "size": os.fstat(self.descriptors[path]).st_size, "type": "file"}

    def open(self, path: str, mode: str = "rb", **_: Any) -> AttachedFile:
        if not self._is_open(path) or mode != "rb":
            raise PermissionError(f"{path} cannot be opened by a query")
        return AttachedFile(self.descriptors[path])

    def glob(self, path: str, **_: Any) -> list[str]:
        return [path] if self._is_open(path) else []

    def modified(self, path: str) -> datetime:
        """Never: DuckDB asks, to know whether what it remembers of a file is still so."""
        return _NEVER

    def _is_open(self, path: str) -> bool:
        return path in (self.tables if self.closed else self.descriptors)
