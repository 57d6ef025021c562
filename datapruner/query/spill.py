"""Where a statement puts what does not fit into its memory: files that exist in this process alone.

DuckDB spills into a folder, but a query process can open no file. So it is given a folder of another file
system, this one, whose files are stretches of one file without a name, opened before the process is locked.
Whatever happens to the process, the system has the room back when it ends, and no path leads there. A
statement that finds out what the files are called reads, or spoils, no more than its own.

Notable choice: DuckDB makes a file for every large block, so stretches are short and used again.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from typing import Any

from fsspec import AbstractFileSystem

_STRETCH = 1 << 18


class SpillFile:
    """One file as DuckDB reads and writes it. Its threads share it: each has a position of its own."""

    def __init__(self, files: SpillFiles, path: str) -> None:
        self._files = files
        self._path = path
        self._local = threading.local()

    def __enter__(self) -> SpillFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        assert whence == os.SEEK_SET, whence
        self._local.position = position
        return position

    def tell(self) -> int:
        return int(getattr(self._local, "position", 0))

    def read(self, size: int) -> bytes:
        data = self._files.read(self._path, self.tell(), size)
        self._local.position = self.tell() + len(data)
        return data

    def write(self, data: bytes) -> int:
        self._files.write(self._path, self.tell(), data)
        self._local.position = self.tell() + len(data)
        return len(data)

    def truncate(self, size: int) -> None:
        self._files.truncate(self._path, size)

    def flush(self) -> None:
        """Nothing is to outlive the process."""

    def close(self) -> None:
        """The file stays until it is removed."""


class SpillFiles(AbstractFileSystem):  # type: ignore[misc]
    """Files in the folder `FOLDER`, of `most` bytes together. Raises OSError when they would be more."""

    protocol = "spill"
    cachable = False
    FOLDER = "spill://statement"

    def __init__(self, folder: str, most: int) -> None:
        super().__init__()
        with tempfile.TemporaryFile(dir=folder) as file:  # without a name from the start
            self._descriptor = os.dup(file.fileno())
        self.is_full = False
        """Whether there was no room for something, within `most` or on the disk."""
        self._left = most // _STRETCH
        self._end = 0
        self._free: list[int] = []
        self._stretches: dict[str, list[int]] = {}
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()

    def read(self, path: str, position: int, size: int) -> bytes:
        stretches = self._stretches[path]
        size = max(0, min(size, self._sizes[path] - position))
        return b"".join(
            os.pread(self._descriptor, count, stretches[number] * _STRETCH + begin)
            for number, begin, count in _parts(position, size)
        )

    def write(self, path: str, position: int, data: bytes) -> None:
        view = memoryview(data)
        with self._lock:
            self._reserve(path, position + len(view))
            stretches = self._stretches[path]
        done = 0
        for number, begin, count in _parts(position, len(view)):
            self._put(stretches[number] * _STRETCH + begin, view[done : done + count])
            done += count

    def _put(self, at: int, data: memoryview) -> None:
        while len(data):
            try:
                done = os.pwrite(self._descriptor, data, at)
            except OSError:
                self.is_full = True
                raise
            at, data = at + done, data[done:]

    def truncate(self, path: str, size: int) -> None:
        with self._lock:
            self._sizes[path] = min(size, self._sizes[path])
            self._give_back(path, -(-size // _STRETCH))

    def _reserve(self, path: str, size: int) -> None:
        stretches = self._stretches[path]
        while len(stretches) * _STRETCH < size:
            if not self._left:
                self.is_full = True
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._left -= 1
            if not self._free:
                self._free.append(self._end)
                self._end += 1
            stretches.append(self._free.pop())
        self._sizes[path] = max(size, self._sizes[path])

    def _give_back(self, path: str, keep: int) -> None:
        stretches = self._stretches[path]
        self._left += len(stretches[keep:])
        self._free += stretches[keep:]
        del stretches[keep:]

    def open(self, path: str, mode: str = "rb", **_: Any) -> SpillFile:
        if not path.startswith(f"{self.FOLDER}/duckdb_temp_"):
            raise PermissionError(f"{path} cannot be opened by a query")
        with self._lock:
            if path not in self._stretches:
                if mode == "rb":
                    raise FileNotFoundError(path)
                self._stretches[path], self._sizes[path] = [], 0
        return SpillFile(self, path)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        if path.rstrip("/") == self.FOLDER:
            return {"name": path, "size": 0, "type": "directory"}
        if path not in self._sizes:
            raise FileNotFoundError(path)
        return {"name": path, "size": self._sizes[path], "type": "file"}

    def rm(self, path: str, **_: Any) -> None:
        with self._lock:
            self._give_back(path, 0)
            del self._stretches[path], self._sizes[path]

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """Nothing: what is there is DuckDB's alone."""
        return []


def _parts(position: int, size: int) -> list[tuple[int, int, int]]:
    """The stretches that these bytes lie in: number, first byte inside, and how many."""
    found = []
    while size > 0:
        number, begin = divmod(position, _STRETCH)
        count = min(size, _STRETCH - begin)
        found.append((number, begin, count))
        position, size = position + count, size - count
    return found
