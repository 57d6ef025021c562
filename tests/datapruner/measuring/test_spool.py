"""Vectors that stand in a file without a name."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from datapruner.measuring import spool as module
from datapruner.measuring.spool import Spool, column
from datapruner.system.space import NoSpaceError
from scorers.signals.columns import Signals


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def in_memory(column: np.ndarray) -> int:
    """Bytes of an array on disk that this process has in memory, whatever else it has."""
    address, inside = column.ctypes.data, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= address < int(found[2], 16)
        elif inside and line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the array is in no mapping")


def test_vectors_are_taken_by_number_wherever_they_were_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BYTES_AT_ONCE", 100)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 5)).astype(np.float32)
    spool = Spool(tmp_path, rng.permutation(50), 5)
    for rows in np.array_split(rng.permutation(50), 4):
        spool.put(rows, vectors[rows])
    assert spool.shape == (50, 5)
    for rows in (np.arange(50), np.array([7, 49, 7, 0]), np.empty(0, np.int64)):
        assert np.array_equal(spool[rows], vectors[rows])
    taken = spool[np.array([3])]
    taken[:] = 0
    assert np.array_equal(spool[np.array([3])], vectors[[3]])


def test_nothing_of_it_has_a_name_nor_stays_in_the_memory_of_the_process(tmp_path: Path) -> None:
    before = resident()
    spool = Spool(tmp_path, np.arange(50_000), 400)
    for rows in np.array_split(np.arange(50_000), 50):
        spool.put(rows, np.full((len(rows), 400), rows[0], np.float32))
    total = sum(float(spool[rows][0, 0]) for rows in np.array_split(np.arange(50_000), 50))
    assert total == 1000 * sum(range(50))
    assert resident() - before < 40 << 20  # of 80 MB
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is in memory")
def test_token_columns_that_are_long_leave_memory_block_by_block(tmp_path: Path) -> None:
    samples, each = 50_000, 400
    losses = column(tmp_path, samples * each, np.float32)
    signals = Signals(np.arange(samples).astype(np.str_), {}, {"nll": losses}, np.arange(samples + 1) * each)
    most = 0
    for _ in range(2):
        for rows, tokens in signals.blocks():
            losses[tokens] = np.repeat(np.arange(rows.start, rows.stop), each)
            most = max(most, in_memory(losses))
    assert 20 << 20 < most < 40 << 20  # of 80 MB, a block of 26 MB
    assert losses[-1] == samples - 1
    assert list(tmp_path.iterdir()) == []


def test_few_numbers_stay_in_memory(tmp_path: Path) -> None:
    assert not isinstance(column(tmp_path / "nowhere", 100, np.float32), np.memmap)


def test_no_samples_need_no_file(tmp_path: Path) -> None:
    assert Spool(tmp_path / "nowhere", np.empty(0, np.int64), 4)[np.empty(0, np.int64)].shape == (0, 4)


def test_a_full_disk_is_said_before_anything_is_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(NoSpaceError, match="vectors cannot be written: No space left on device"):
        Spool(tmp_path, np.arange(3), 4)
