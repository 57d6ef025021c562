"""The tasks of a measuring as files that every node reads: one row and one row group a task.

A load is some tasks that follow one another and are sent to an actor at once. Notable choice: loads get
smaller towards the end, so that no actor is busy long after the others have run out of work.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datapruner.measuring.workers.local import Task

TASKS_A_FILE = 64
_MOST_TASKS = 16
"""Of a load: an actor's device waits at its beginning, and between its tasks it does not."""

_ROUNDS_LEFT = 4
"""Loads that each actor is to have after one that has several tasks."""

_TEXTS = pa.large_string()
_SCHEMA = pa.schema(
    [
        ("folder", _TEXTS),
        ("name", _TEXTS),
        ("about", _TEXTS),
        ("whole", pa.bool_()),
        ("samples", pa.large_list(_TEXTS)),
    ]
)

Load = tuple[int, int]
"""Its first task, and the one after its last, by their numbers."""


def write(folder: Path, tasks: Iterable[Task], on_wait: Callable[[], None]) -> tuple[int, bool]:
    """Write all tasks into the folder; how many there are, and whether they are `whole` ones.

    `on_wait` is called between them. Raises OSError.
    """
    count, whole = 0, False
    writer: pq.ParquetWriter | None = None
    try:
        for task in tasks:
            if count % TASKS_A_FILE == 0:
                if writer is not None:
                    writer.close()
                writer = pq.ParquetWriter(_file(folder, count), _SCHEMA, compression="zstd")
            assert writer is not None
            row = {
                "folder": str(task.folder),
                "name": task.name,
                "about": json.dumps(dict(task.about)),
                "whole": task.whole,
                "samples": [json.dumps(sample) for sample in task.samples],
            }
            writer.write_table(pa.Table.from_pylist([row], schema=_SCHEMA))
            count, whole = count + 1, task.whole
            on_wait()
    finally:
        if writer is not None:
            writer.close()
    return count, whole


def read(folder: Path, load: Load) -> Iterator[Task]:
    """The tasks of a load, one after the other. Raises OSError."""
    for number in range(*load):
        file = pq.ParquetFile(_file(folder, number))
        [row] = file.read_row_group(number % TASKS_A_FILE).to_pylist()
        yield Task(
            [json.loads(sample) for sample in row["samples"]],
            Path(row["folder"]),
            about=json.loads(row["about"]),
            name=row["name"],
            whole=row["whole"],
        )


def is_done(task: Task) -> bool:
    """Whether an attempt that was broken off has left the result of a task, with all of its samples."""
    if not task.out.is_file():
        return False
    return task.whole or pq.read_metadata(task.out).num_rows == len(task.samples)


def cut(tasks: int, actors: int) -> list[Load]:
    """So many tasks as loads for so many actors."""
    found: list[Load] = []
    first = 0
    while first < tasks:
        size = max(1, min(_MOST_TASKS, (tasks - first) // (actors * _ROUNDS_LEFT)))
        found.append((first, first + size))
        first += size
    return found


def _file(folder: Path, number: int) -> Path:
    """The file that a task is in."""
    return folder / f"tasks-{number // TASKS_A_FILE:06d}.parquet"
