"""Files that appear whole, and what is left of those that never did."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from datapruner.system.files import clear_unfinished, publishing, unfinished


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
