"""Files that appear whole, and what is left of those that never did."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from datapruner.errors import UsageError
from datapruner.system.files import (
    check_file,
    check_place,
    clear_unfinished,
    publishing,
    publishing_folder,
    unfinished,
)


def aged(path: Path, days: float) -> Path:
    moment = time.time() - days * 86_400
    os.utime(path, (moment, moment))
    return path


def test_what_is_not_finished_is_hidden_and_leaves_no_trace_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with publishing(path) as file:
        file.write(b"{}")
        (temporary,) = tmp_path.iterdir()
        assert temporary.name.startswith(".unfinished-")
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]
    with pytest.raises(OSError), publishing(path) as file:
        file.seek(-1)
    assert path.read_bytes() == b"{}"
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("was_there", [False, True])
def test_a_folder_appears_with_all_its_files_or_not_at_all(tmp_path: Path, was_there: bool) -> None:
    path = tmp_path / "folder"
    if was_there:
        path.mkdir()
    with pytest.raises(OSError, match="one"), publishing_folder(path) as folder:
        (folder / "one" / "two").write_text("1")
    assert [each.name for each in tmp_path.rglob("*")] == (["folder"] if was_there else [])
    with publishing_folder(path) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "one").write_text("1")
    assert (path / "deep" / "one").read_text() == "1"
    with pytest.raises(OSError, match="folder"), publishing_folder(path) as folder:
        (folder / "two").write_text("2")
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["deep", "folder", "one"]


def test_what_killed_processes_left_goes_when_it_is_a_day_old(tmp_path: Path) -> None:
    below = tmp_path / "projects" / "signals"
    below.mkdir(parents=True)
    old = unfinished(below / "shard.parquet")
    old.write_bytes(b"half")
    spill = old.with_name(f"{old.name}.spill")
    spill.mkdir()
    (spill / "block").write_bytes(b"half")
    aged(old, 1.1)
    aged(spill, 1.1)
    young = unfinished(below / "shard.parquet")
    young.write_bytes(b"in the making")
    finished = below / "shard.parquet"
    finished.write_bytes(b"whole")
    lock = below / ".lock"
    lock.touch()
    aged(finished, 9)
    aged(lock, 9)
    clear_unfinished(tmp_path)
    assert {path.name for path in below.iterdir()} == {young.name, finished.name, lock.name}
    clear_unfinished(tmp_path / "not there")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/rows.csv", r"the folder .*no does not exist \(create it first\)"),
        ("mine.csv/rows.csv", r"mine\.csv is a file \(name a folder in its place\)"),
        ("folder", r"folder is a folder \(name a file\)"),
    ],
)
def test_a_place_where_no_file_can_be_made_is_told(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "mine.csv").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match=message):
        check_file(tmp_path / name)
    check_file(tmp_path / "mine.csv")


def test_a_place_needs_a_name() -> None:
    with pytest.raises(UsageError, match=r"'\.' has no name"):
        check_place(Path())
