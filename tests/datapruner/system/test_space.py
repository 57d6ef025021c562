"""Want of space as each library tells it, on a real disk that is full or read-only."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datapruner.corpora.ingest import ingest
from datapruner.errors import DataprunerError, InputError, StorageError, UsageError, WorkerError
from datapruner.system.space import NoSpaceError, needed, told
from tests.disks import Disk

TABLE = pa.table({"a": np.arange(3_000_000)})


def by_duckdb(folder: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{folder}/made.duckdb' AS made")
        connection.execute("CREATE TABLE made.t AS SELECT range, hash(range) FROM range(3000000)")


def by_an_open_duckdb(folder: Path) -> None:
    with duckdb.connect(str(folder / "there.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT range, hash(range) FROM range(3000000)")


def by_duckdb_spilling(folder: Path) -> None:
    with duckdb.connect(
        config={"memory_limit": "40MB", "temp_directory": str(folder / "spill")}
    ) as connection:
        connection.execute("CREATE TABLE t AS SELECT hash(range)::VARCHAR s FROM range(5000000) ORDER BY s")


def by_pyarrow(folder: Path) -> None:
    pq.write_table(TABLE, folder / "made.parquet")


def by_polars(folder: Path) -> None:
    pl.DataFrame(TABLE).write_parquet(folder / "made.parquet")


def by_polars_to_a_file(folder: Path) -> None:
    with (folder / "made.jsonl").open("wb") as file:
        pl.DataFrame(TABLE).write_ndjson(file)


def by_numpy(folder: Path) -> None:
    np.save(folder / "made.npy", TABLE["a"].to_numpy())


def by_sqlite(folder: Path) -> None:
    connection = sqlite3.connect(folder / "there.sqlite")
    try:
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 20_000)
        connection.commit()
    finally:
        connection.close()


def by_ingest(folder: Path) -> None:
    ingest([{"prompt": "a", "completion": "b"}], out=folder / "made.duckdb")


WRITERS = [
    by_duckdb,
    by_an_open_duckdb,
    by_duckdb_spilling,
    by_pyarrow,
    by_polars,
    by_polars_to_a_file,
    by_numpy,
    by_sqlite,
    by_ingest,
]


def spoilt(disk: Disk, how: str) -> None:
    """Make the disk full or read-only; it has a DuckDB and a SQLite file."""
    duckdb.connect(str(disk.path / "there.duckdb")).close()
    connection = sqlite3.connect(disk.path / "there.sqlite")
    connection.execute("CREATE TABLE t (a)")
    connection.close()
    disk.fill() if how == "full" else disk.protect()


@pytest.mark.parametrize("how", ["full", "read-only"])
@pytest.mark.parametrize("write", WRITERS)
def test_every_library_is_understood(small_disk: Disk, write: Callable[[Path], None], how: str) -> None:
    spoilt(small_disk, how)
    with pytest.raises(Exception) as caught:  # each has its own
        write(small_disk.path)
    error = told(caught.value)
    assert isinstance(error, NoSpaceError), repr(caught.value)
    assert {"full": "No space left on device", "read-only": "Read-only file system"}[how] in error.message
    wrapped = UsageError("cannot write that")
    wrapped.__cause__ = caught.value
    assert isinstance(told(wrapped), NoSpaceError), "however it is wrapped"
    with pytest.raises(NoSpaceError, match="cannot be written: "), needed("the thing"):
        raise caught.value


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file or directory"),
        PermissionError(13, "Permission denied"),
        ValueError("No space left on device"),
        InputError("row 3: the text 'No space left on device' is no number"),
        WorkerError("the measuring process died"),
        duckdb.ConversionException("Could not convert string 'No space left on device' to INT32"),
    ],
)
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    assert told(error) is error
    with pytest.raises(type(error)), needed("the thing"):
        raise error


def test_an_error_that_only_came_after_a_want_of_space_was_dealt_with_is_another() -> None:
    def later() -> DataprunerError:
        try:
            try:
                raise OSError(28, "No space left on device")
            except OSError:
                raise WorkerError("unrelated") from None
        except WorkerError as error:
            return error

    error = later()
    assert told(error) is error


def test_what_is_told_says_what_was_written_and_why_once() -> None:
    cause = OSError(28, "No space left on device")
    for message in ("cannot write x.parquet", "cannot write x.parquet: No space left on device"):
        error = StorageError(message)
        error.__cause__ = cause
        found = told(error)
        assert isinstance(found, NoSpaceError)
        assert found.message == "cannot write x.parquet: No space left on device"
        assert found.remedy
        assert told(found) is found
