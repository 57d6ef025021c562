"""Rows as a file, in the format that its name says."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa

from datapruner.errors import UsageError
from datapruner.rows.formats import FILES, FORMATS, OnRows, suffixes, unheard
from datapruner.rows.writable import Rows
from datapruner.system.files import check_file, publishing
from datapruner.system.panics import contained


def plain_table(frame: pl.DataFrame) -> pa.Table:
    """The frame with Arrow's plain types: string, not string_view."""
    table = frame.to_arrow()
    views = [pa.types.is_large_string(f.type) or pa.types.is_string_view(f.type) for f in table.schema]
    kinds = [pa.string() if is_view else f.type for is_view, f in zip(views, table.schema, strict=True)]
    return table.cast(pa.schema(list(zip(table.column_names, kinds, strict=True))))


def check_target(path: Path) -> None:
    """Find out before the work starts that `path` cannot be written. Raises UsageError."""
    if path.suffix not in suffixes(FILES):
        raise UsageError(
            f"{path}: cannot write {path.suffix or 'a file without a suffix'}",
            remedy=f"one of {', '.join(suffixes(FILES))}",
        )
    check_file(path)


@contained()
def write(path: Path, rows: Rows, on_rows: OnRows = unheard) -> int:
    """Write the rows; how many. Published by rename.

    `on_rows` is told now and then how many are written, and may raise to stop it. Raises UsageError when the
    file cannot be written.
    """
    check_target(path)
    name = suffixes(FILES)[path.suffix]
    try:
        with publishing(path) as file:
            return FORMATS[name].write(file, rows, on_rows)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror or error}", remedy="choose another place"
        ) from error
