"""Tasks as files, and cut into loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datapruner.measuring.cluster import loads
from datapruner.measuring.workers.local import Task


def tasks(folder: Path, count: int) -> list[Task]:
    samples: list[list[dict[str, Any]]] = [
        [
            {"id": f"s{i}-{j}", "turns": [["user", "lone \ud800 \x00", None]], "tools": None}
            for j in range(i % 3)
        ]
        for i in range(count)
    ]
    return [
        Task(
            some, folder, about={"steps": [[i]]}, name=f"{i}.parquet" if i % 2 else None, whole=i == count - 1
        )
        for i, some in enumerate(samples)
    ]


def test_tasks_come_back_as_they_were_in_any_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "TASKS_A_FILE", 3)
    given = tasks(tmp_path / "out", 8)
    waits: list[None] = []
    assert loads.write(tmp_path, given, lambda: waits.append(None)) == (8, True)
    assert len(waits) == 8
    for first in range(8):
        for stop in range(first, 9):
            assert list(loads.read(tmp_path, (first, stop))) == given[first:stop]


@pytest.mark.parametrize(
    ("count", "actors"), [(0, 1), (1, 4), (7, 2), (100, 1), (1000, 3), (64, 8), (5000, 4)]
)
def test_loads_are_all_tasks_in_their_order_and_single_ones_at_the_end(count: int, actors: int) -> None:
    found = loads.cut(count, actors)
    assert [number for load in found for number in range(*load)] == list(range(count))
    sizes = [stop - first for first, stop in found]
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes, default=1) <= 16
    assert set(sizes[-actors:]) <= {1}
