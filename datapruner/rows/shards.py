"""Rows as a folder of files, with the names by which `datasets` finds a split in one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from datapruner.errors import UsageError
from datapruner.rows.formats import FORMATS, write_parquet
from datapruner.rows.writable import Rows
from datapruner.system.files import check_place, publishing_folder

Part = Callable[[BinaryIO], object]
"""Writes one file, before the next part is asked for."""


def check_folder(path: Path) -> None:
    """Find out before the work starts that `path` cannot become a folder. Raises UsageError."""
    check_place(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError(f"{path}: there is something already", remedy="name a new folder, or remove it")


def write_parts(path: Path, suffix: str, parts: Iterable[Part]) -> None:
    """A folder with a file for each part; what `parts` raises leaves none. Raises OSError."""
    made = []
    with publishing_folder(path) as folder:
        for number, part in enumerate(parts):
            made.append(folder / f"{number:05}")
            with made[-1].open("xb") as file:
                part(file)
        for number, each in enumerate(made):
            each.rename(folder / f"train-{number:05}-of-{len(made):05}{suffix}")


def write(path: Path, rows: Rows, rows_each: int) -> int:
    """A folder of Parquet files with `rows_each` rows, the last with what is left; how many in all.

    Raises UsageError when it cannot be written there.
    """
    check_folder(path)
    counts: list[int] = []

    def parts() -> Iterator[Part]:
        for _, pieces in groupby(_pieces(rows.tables(), rows_each, counts), key=itemgetter(0)):
            yield partial(write_parquet, tables=map(itemgetter(1), pieces))

    try:
        write_parts(path, FORMATS["parquet"].suffix, parts())
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror or error}", remedy="choose another place"
        ) from error
    return sum(counts)


def _pieces(tables: Iterable[pa.Table], rows_each: int, counts: list[int]) -> Iterator[tuple[int, pa.Table]]:
    """Tables that lie within one file each, and its number; `counts` gets the rows of each."""
    done = 0
    for table in tables:
        start = 0
        while start < table.num_rows:
            count = min(rows_each - done % rows_each, table.num_rows - start)
            counts.append(count)
            yield done // rows_each, table.slice(start, count)
            start, done = start + count, done + count
