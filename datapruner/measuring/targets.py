"""The rows to select towards: which samples of which sets, and the task that each stands for.

Notable choice: a sample that comes twice in a task counts once, in two tasks it counts in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from datapruner.corpora.corpus import Corpus
from datapruner.errors import NothingSurvivedError, UsageError
from scorers.signals.columns import Ints

_LONGEST = 200
"""Characters of a task's name."""


@dataclass(frozen=True, slots=True)
class TargetSet:
    """One set: its task, "" where it has no name, and its rows."""

    task: str
    corpus: Corpus

    @property
    def title(self) -> str:
        return f"the target set {self.task}" if self.task else "the target set"


@dataclass(frozen=True, slots=True)
class TargetRows:
    """The measured samples of all sets, in their order. Lines: set (number), row, sample_id, task.

    left_out: by set, how many samples could not be measured, of how many, and why the first could not.
    tasks_told: whether rows are told apart by their tasks.
    """

    lines: pl.DataFrame
    left_out: Mapping[int, tuple[int, int, str]]
    tasks_told: bool

    @property
    def ids(self) -> list[str]:
        return self.lines["sample_id"].to_list()

    @property
    def tasks(self) -> np.ndarray[tuple[int], np.dtype[np.str_]] | None:
        return np.array(self.lines["task"].to_list(), dtype=np.str_) if self.tasks_told else None

    @property
    def rows(self) -> Ints:
        return self.lines["row"].to_numpy().astype(np.int64)

    def warnings(self) -> list[str]:
        """What to mind: rows that no sample was compared with."""
        return [
            f"{count} of {total} samples of the target set are left out: {why}"
            for count, total, why in self.left_out.values()
        ]


def target_rows(
    sets: Sequence[TargetSet], column: str | None, errors: Sequence[Mapping[str, str]]
) -> TargetRows:
    """The rows to select towards. column: the original column that names each row's task. errors: of each set
    the samples that could not be measured.

    Raises UsageError for a column that is not there or names no task of some row, and NothingSurvivedError
    for a task without a measured row.
    """
    lines: list[pl.DataFrame] = []
    left_out: dict[int, tuple[int, int, str]] = {}
    for number, (each, failed) in enumerate(zip(sets, errors, strict=True)):
        index = each.corpus.sample_index().select("row", "sample_id")
        tasks = [each.task] * len(index) if column is None else _tasks(each, column, index["row"].to_list())
        found = index.with_columns(set=pl.lit(number), task=pl.Series(tasks, dtype=pl.String))
        lines.append(found.with_columns(failed=pl.col("sample_id").is_in(list(failed))))
        if failed:
            left_out[number] = (len(failed), index["sample_id"].n_unique(), next(iter(failed.values())))
    table = pl.concat(lines)
    keys = ["task", "sample_id"] if column is not None else ["set", "sample_id"]
    table = table.unique(keys, keep="first", maintain_order=True)
    measured = table.filter(~pl.col("failed"))
    lost = table.filter(~pl.col("task").is_in(measured["task"].unique().to_list()))
    if not lost.is_empty():
        task, at = lost["task"][0], lost["set"][0]
        what = f"task {task} of the target set" if task else "the target set"
        raise NothingSurvivedError(
            f"nothing of {what} could be measured", remedy=f"the first: {left_out[at][2]}"
        )
    return TargetRows(measured, left_out, column is not None or any(each.task for each in sets))


def check_column(each: TargetSet, column: str) -> None:
    """Raise UsageError when the rows of a set have no such column."""
    names = each.corpus.original_names()
    if column not in names:
        raise UsageError(
            f"{each.title} has no column {column!r}, which is to name the task of each row",
            remedy=f"its columns are {', '.join(names)}",
            field="task_column",
        )


def _tasks(each: TargetSet, column: str, rows: Sequence[int]) -> list[str]:
    """The task of each of these rows, in row order."""
    check_column(each, column)
    found: list[str] = []
    for batch in each.corpus.originals(rows):
        for value in batch.column(column).to_pylist():
            task = "" if value is None else str(value).strip()
            if not task or len(task) > _LONGEST or not task.isprintable():
                raise UsageError(
                    f"{each.title}, row {rows[len(found)]}: column {column!r} names no task"
                    + (f" ({task!r:.80})" if task else ""),
                    remedy=f"give each row a name of 1 to {_LONGEST} printable characters",
                    field="task_column",
                )
            found.append(task)
    return found
