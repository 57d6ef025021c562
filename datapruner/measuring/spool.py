"""What is many of a corpus, beside memory: in a file without a name, which is gone when nobody reads it.

A million samples of a small model have gigabytes of vectors. Methods take some at a time, most often in the
order of the sample ids, which says nothing of where they stand in the shards: so they are put down once in
that order.

Notable choices:
- what there is one of for each token or sample is read in the order of the corpus, and lies in it; where it
  is little it stays in memory;
- what was read is let go at once, so that the memory of the process is what it works on; what the system
  keeps of the file, it gives back where others need it;
- room is reserved first, where the system can: a full disk is an error here, and no signal in the middle of
  the work.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from datapruner.system.space import needed
from scorers.signals.columns import Ints

_BYTES_AT_ONCE = 8 << 20
_HELD_BYTES = 64 << 20


def column(folder: Path, count: int, dtype: DTypeLike) -> NDArray[Any]:
    """So many values to be filled in, on the disk of `folder` where they are many. Raises NoSpaceError."""
    size = count * np.dtype(dtype).itemsize
    if size <= _HELD_BYTES:
        return np.empty(count, dtype)
    with needed("signals"), _unnamed(folder, size) as file:
        return np.memmap(file, dtype, "r+", shape=(count,))


def gathered(folder: Path, parts: Iterable[NDArray[Any]], dtype: DTypeLike) -> NDArray[Any]:
    """The values of all parts, which come one after another, on the disk of `folder`. Raises NoSpaceError."""
    with tempfile.TemporaryFile(dir=folder) as file:
        for part in parts:
            with needed("what is compared"):
                file.write(np.asarray(part, dtype).tobytes())
        with needed("what is compared"):
            file.flush()
        return np.memmap(file, dtype, "r") if file.tell() else np.empty(0, dtype)


@contextmanager
def _unnamed(folder: Path, size: int) -> Iterator[IO[bytes]]:
    """A file with room for so many bytes. Raises OSError."""
    with tempfile.TemporaryFile(dir=folder) as file:
        if sys.platform == "linux":
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        yield file


class Spool:
    """Vectors of N samples, (N, k), as `scorers.signals.columns.Vectors` are taken.

    folder: on whose disk they are. place: (N,) where each sample's vector stands in the file, 0 to N - 1.
    Raises NoSpaceError.
    """

    def __init__(self, folder: Path, place: Ints, width: int) -> None:
        self._place = place
        self._map: mmap.mmap | None = None
        self._rows: NDArray[np.float32] = np.empty((len(place), width), np.float32)
        self._step = max(1, _BYTES_AT_ONCE // max(1, width * self._rows.itemsize))
        size = self._rows.nbytes
        if not size:
            return
        with needed("vectors"), _unnamed(folder, size) as file:
            self._map = mmap.mmap(file.fileno(), size)
        self._rows = np.frombuffer(self._map, np.float32).reshape(self._rows.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._rows.shape

    def put(self, rows: Ints, vectors: NDArray[np.float32]) -> None:
        """Put down the vectors of these samples, (len(rows), k)."""
        for start in range(0, len(rows), self._step):
            self._rows[self._place[rows[start : start + self._step]]] = vectors[start : start + self._step]
            self._let_go()

    def __getitem__(self, rows: Ints) -> NDArray[np.float32]:
        found = np.empty((len(rows), self._rows.shape[1]), np.float32)
        for start in range(0, len(rows), self._step):
            places = self._place[rows[start : start + self._step]]
            found[start : start + self._step] = self._rows[places]
            self._let_go()
        return found

    def _let_go(self) -> None:
        if sys.platform != "win32" and self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)
