"""Files that exist in one process alone, and are stretches of one without a name."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from datapruner.query import spill
from datapruner.query.spill import SpillFiles

NAME = f"{SpillFiles.FOLDER}/duckdb_temp_1"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SpillFiles:
    monkeypatch.setattr(spill, "_STRETCH", 16)
    return SpillFiles(str(tmp_path), 160)


def test_what_was_written_anywhere_is_read_again(files: SpillFiles, tmp_path: Path) -> None:
    first, other = files.open(f"{NAME}.a", "rb+"), files.open(f"{NAME}.b", "wb")
    first.write(b"0123456789" * 4)
    other.write(b"x" * 20)
    first.seek(35)
    first.write(b"abcdefgh")
    first.seek(14)
    assert first.read(26) == b"456789" + b"0123456789" + b"01234abcde"
    assert first.read(100) == b"fgh"
    assert files.open(f"{NAME}.b").read(100) == b"x" * 20
    assert files.info(f"{NAME}.a")["size"] == 43
    assert list(tmp_path.iterdir()) == []


def test_room_of_files_that_are_gone_or_cut_is_used_again(files: SpillFiles) -> None:
    for _ in range(5):
        with files.open(f"{NAME}.a", "wb") as file:
            file.write(b"x" * 150)
            file.truncate(20)
        with files.open(f"{NAME}.b", "wb") as file:
            file.write(b"y" * 100)
        assert files.open(f"{NAME}.a").read(99) == b"x" * 20
        files.rm(f"{NAME}.a")
        files.rm(f"{NAME}.b")
    assert not files.is_full


def test_there_is_no_more_room_than_was_given(files: SpillFiles) -> None:
    file = files.open(f"{NAME}.a", "wb")
    with pytest.raises(OSError, match="No space left") as failure:
        file.write(b"x" * 161)
    assert failure.value.errno == errno.ENOSPC
    assert files.is_full


def test_other_files_are_not_there(files: SpillFiles, tmp_path: Path) -> None:
    (tmp_path / "duckdb_temp_1").write_text("not to be read")
    for path in (str(tmp_path / "duckdb_temp_1"), f"{SpillFiles.FOLDER}/other", "spill://duckdb_temp_1"):
        with pytest.raises(PermissionError):
            files.open(path, "rb+")
    with pytest.raises(FileNotFoundError):
        files.open(NAME)
    assert files.ls(SpillFiles.FOLDER) == files.glob(f"{SpillFiles.FOLDER}/*") == []
