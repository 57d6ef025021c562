"""What to select towards: rows of a target set, their tasks, and what of the samples each of them took.

Notable choice: rows and tasks take their turns in the order in which the target set has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scorers.column import Column
from scorers.method import Columns, Selection
from scorers.selection.queries import Queries
from scorers.selection.ranking import all_tokens, ranked_selection
from scorers.selection.turns import take_turns
from scorers.selection.vectors import UnitVectors
from scorers.shares import count_to_keep
from scorers.signals.columns import Floats, Ints, Signals

BALANCE_HELP = (
    "whose turns are as many: the target set's tasks, whatever their sizes, or its rows, whatever their tasks"
)

NEAREST_ROW = Column(
    "nearest_row", "row of the target set that the sample is most like, 0-based", kind="whole", at_least=0
)
NEAREST_TASK = Column("nearest_task", "task of the target set that the sample is most like", kind="text")
TAKEN_AT = Column(
    "taken_at",
    "turn at which a row or task of the target set took the sample, from 1; 0: none did",
    "selection",
    "whole",
    at_least=0,
)


@dataclass(frozen=True, slots=True)
class Aims:
    """Who asks for samples.

    names: of each asker, (A,), for reasons. groups: as for `take_turns`. rows, tasks: of each query, (Q,),
    where it is a row of the target set, and where tasks are told apart.
    """

    queries: Queries
    names: Sequence[str]
    groups: Sequence[Ints]
    rows: Ints | None = None
    tasks: NDArray[np.str_] | None = None

    def columns(self, query: Ints) -> Columns:
        """Of samples whose nearest queries these are, (N,), which row or task that is."""
        found: Columns = {}
        if self.rows is not None:
            found[NEAREST_ROW.name] = self.rows[query]
        if self.tasks is not None:
            found[NEAREST_TASK.name] = self.tasks[query]
        return found


def tasks_of(target: Signals) -> list[tuple[str, Ints]]:
    """The tasks of a target set, by name, "" where none is told, and the numbers of their samples."""
    if target.tasks is None:
        return [("", np.arange(len(target)))]
    names, first, number = np.unique(target.tasks, return_index=True, return_inverse=True)
    return [(str(names[task]), np.flatnonzero(number == task)) for task in np.argsort(first)]


def rows_of(target: Signals, name: str, *, balance: str, together: bool = False) -> Aims:
    """The rows of a target set by their vector signal `name`, each its own asker or, `together`, those of a
    task, or all without balance, as one.

    A row whose vector is zero is like nothing and asks for nothing. Raises ValueError, naming the sample, for
    one that is not finite, and when no row is left.
    """
    vectors = _vectors(target, name)
    length = np.linalg.norm(vectors, axis=1)
    numbers = np.arange(len(target)) if target.rows is None else target.rows
    tasks = [(task, rows[length[rows] > 0]) for task, rows in tasks_of(target)]
    tasks = [(task, rows) for task, rows in tasks if len(rows)]
    if not tasks:
        raise ValueError(f"vector signal {name} of the whole target set is zero; name another target set")
    order = np.concatenate([rows for _, rows in tasks])
    of_task = np.repeat(np.arange(len(tasks)), [len(rows) for _, rows in tasks])
    if together:
        asker = of_task if balance == "tasks" else np.zeros_like(of_task)
        names = [_task(task) for task, _ in tasks] if balance == "tasks" else [_task("")]
        groups = [np.array([each]) for each in range(len(names))]
    else:
        if balance == "rows":
            by_row = np.argsort(order, kind="stable")
            order, of_task = order[by_row], of_task[by_row]
        asker = np.arange(len(order))
        names = [
            f"row {numbers[row]} of {_task(tasks[task][0])}"
            for row, task in zip(order.tolist(), of_task.tolist(), strict=True)
        ]
        by_task = [np.flatnonzero(of_task == task) for task in range(len(tasks))]
        groups = by_task if balance == "tasks" else [asker]
    return Aims(
        Queries(vectors[order] / length[order, None], asker),
        names,
        groups,
        rows=numbers[order],
        tasks=None if target.tasks is None else target.tasks[order],
    )


def means_of(tasks: Sequence[tuple[str, Floats]]) -> Aims:
    """The tasks of a target set, each by a vector (D,) of its own, which is not zero."""
    names = [name for name, _ in tasks]
    vectors = np.stack([vector / np.linalg.norm(vector) for _, vector in tasks])
    asker = np.arange(len(tasks))
    return Aims(
        Queries(vectors, asker),
        [_task(name) for name in names],
        [np.array([each]) for each in range(len(names))],
        tasks=np.array(names) if any(names) else None,
    )


def _vectors(target: Signals, name: str) -> Floats:
    if name not in target.vectors:
        measured = ", ".join(sorted(target.vectors)) or "none"
        raise ValueError(f"vector signal {name} was not measured; measured are {measured}")
    vectors: Floats = target.vectors[name][np.arange(len(target))].astype(np.float64)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"vector signal {name} of sample {target.ids[int(np.argmin(finite))]} of the target set is not "
            "finite; leave it out"
        )
    return vectors


def _task(name: str) -> str:
    return f"task {name}" if name else "the target set"


def selected(
    signals: Signals, vector: str, aims: Aims, values: Floats, share: float, *, name: str, title: str
) -> Selection:
    """The `count_to_keep` samples that the askers took in turn; with one asker alone, those of the highest
    score.

    vector: the signal that samples are compared by. values: (N,) the score, of that `name`, which is each
    sample's cosine to its nearest query. title: of the method, for reasons.
    """
    if len(aims.names) == 1:
        among = f"cosine to {aims.names[0]} among the highest"
        return ranked_selection(signals, values, share, among=among, shown={name: values})
    budget = count_to_keep(share, len(signals))
    samples = UnitVectors(signals, vector, zeros=True)
    taken = take_turns(samples, aims.queries, aims.groups, budget)
    turn = np.zeros(len(signals), dtype=np.int64)
    turn[taken.samples] = np.arange(1, budget + 1)
    reason = np.full(len(signals), len(aims.names))
    reason[taken.samples] = taken.asker
    keep = turn > 0
    return Selection(
        keep=keep,
        reason=reason,
        reasons=(
            *(f"{title}: taken at turn {{turn}} by {asker}" for asker in aims.names),
            f"{title}: not among the {100 * share:.6g} % that the target set took in turn",
        ),
        token_keep=all_tokens(signals),
        thresholds={name: float(values[keep].min())} if budget else {},
        columns={TAKEN_AT.name: turn},
        turn=turn,
    )
