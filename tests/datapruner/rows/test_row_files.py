"""Rows as files of the kind that their name says."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datapruner.errors import UsageError
from datapruner.rows import formats, row_files
from datapruner.rows.writable import Rows


def some_rows() -> Rows:
    table = pa.table(
        {
            "text": ['a "b",\nc', "", None],
            "number": [1, None, -2],
            "float": [float("nan"), 0.5, None],
            "flag": [True, None, False],
            "list": [[1, None], [], None],
            "na,me": ["x", "y", "z"],
        }
    )
    return Rows.of(table, "rows")


def test_csv_tells_null_from_empty_text_and_has_lists_as_json(tmp_path: Path) -> None:
    assert row_files.write(tmp_path / "rows.csv", some_rows()) == 3
    assert (tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines() == [
        '"text","number","float","flag","list","na,me"',
        '"a ""b"",',
        'c",1,"NaN",true,"[1,null]","x"',
        '"",,0.5,,"[]","y"',
        ',-2,,false,,"z"',
    ]
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["text"] == 'a "b",\nc'


def test_json_lines_and_parquet_have_the_same_rows(tmp_path: Path) -> None:
    rows = some_rows()
    assert (
        row_files.write(tmp_path / "rows.jsonl", rows) == row_files.write(tmp_path / "r.parquet", rows) == 3
    )
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    read = pq.read_table(tmp_path / "r.parquet")
    assert lines[0].pop("float") == "NaN"
    assert lines == [
        {name: value for name, value in row.items() if number or name != "float"}
        for number, row in enumerate(read.to_pylist())
    ]


def test_progress_is_told_and_may_stop_the_writing(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(_: int) -> None:
        raise StoppedError

    many = Rows.of(pa.table({"n": range(5000)}), "rows")
    for suffix in formats.suffixes(formats.FILES):
        with pytest.raises(StoppedError):
            row_files.write(tmp_path / f"rows{suffix}", many, stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["rows.xlsx", "rows", "missing/rows.csv"])
def test_a_place_that_cannot_be_written_is_told_before_anything_is_made(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"cannot write|does not exist"):
        row_files.check_target(tmp_path / name)
