"""Keep what pulls the model where a target set would: cosine of head gradients to the target's.

The idea is LESS (arXiv 2402.04333), but not the method: LESS warms a LoRA up on the corpus, takes gradients
at several checkpoints and corrects those of training samples by Adam's state. This is the plain cosine of
projected output-head gradients at one state of the proxy, hence its own name.

Notable choices:
- as in LESS, samples are compared by cosine rather than inner product, which would prefer short responses:
  their mean gradients are the longest;
- as in LESS, a task of the target set is its mean gradient, and a sample's score its largest cosine to a
  task. LESS then keeps the highest scores, and a task that all samples are like fills the subset; here tasks
  take turns. `balance=rows` takes the target set for one task;
- `pick=round-robin` compares with every row of the target set alone and lets the rows take turns, which
  serves small subsets best in a comparison of selections under the same gradients (arXiv 2602.14696).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option
from scorers.selection.aims import (
    BALANCE_HELP,
    NEAREST_ROW,
    NEAREST_TASK,
    TAKEN_AT,
    Aims,
    means_of,
    rows_of,
    selected,
    tasks_of,
)
from scorers.selection.influence import PROJECTION, gradients, mean_gradient, target_set
from scorers.selection.queries import nearest
from scorers.selection.vectors import UnitVectors
from scorers.signals.columns import Floats, Ints, Signals

COSINE = Column(
    "target_cosine",
    "cosine of the sample's projected gradient to the target set's, the largest of its tasks' or rows'",
    direction="high",
    at_least=-1,
    at_most=1,
)


@dataclass(frozen=True, slots=True)
class TargetCosineOptions(Options):
    pick: Literal["mean", "round-robin"] = option(
        "mean",
        "what a sample is compared with: the mean gradient of each task, or every row of the target set; "
        "rows in turn take the best of what is left",
    )
    balance: Literal["tasks", "rows"] = option("tasks", BALANCE_HELP)


class TargetCosine:
    """Exactly ceil(share * N) samples, whose gradients point most as the target set's or a task's of it."""

    name = "target-cosine"
    title = "Cosine of head gradients to a target set's (LESS without its optimizer and checkpoints)"
    paper = "arXiv 2402.04333"
    options = TargetCosineOptions
    presets: Mapping[str, Mapping[str, Any]] = {}
    columns: tuple[Column, ...] = (
        COSINE,
        NEAREST_ROW,
        NEAREST_TASK,
        TAKEN_AT,
        COSINE.cut(meaning="lowest that is kept"),
    )

    def needs(self, options: TargetCosineOptions) -> frozenset[str]:
        return frozenset({PROJECTION, f"target:{PROJECTION}"})

    def scores(self, signals: Signals, options: TargetCosineOptions, seed: int) -> Columns:
        """`target_cosine`, and the task, or row and task, of the target set that it is the cosine to.

        Raises ValueError also when the mean gradient of a task is zero, or the gradients of all rows are.
        """
        if options.pick == "round-robin":
            aims = _aims(signals, options)
            cosine, query = nearest(UnitVectors(signals, PROJECTION, zeros=True), aims.queries)
            return {"target_cosine": cosine, **aims.columns(query)}
        best, task = np.full(len(signals), -np.inf), np.zeros(len(signals), dtype=np.int64)
        means = _means(signals, options)
        for number, (_, mean) in enumerate(means):
            values = cosines(signals, mean)
            task[values > best] = number
            np.maximum(best, values, out=best)
        return {"target_cosine": best, **means_of(means).columns(task)}

    def token_scores(self, signals: Signals, options: TargetCosineOptions) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: TargetCosineOptions, seed: int
    ) -> Selection:
        """threshold `target_cosine`: the lowest score kept."""
        values = np.asarray(scores["target_cosine"], dtype=np.float64)
        aims = _aims(signals, options)
        return selected(
            signals, PROJECTION, aims, values, share, name="target_cosine", title="gradient cosine"
        )


def _aims(signals: Signals, options: TargetCosineOptions) -> Aims:
    if options.pick == "round-robin":
        return rows_of(target_set(signals), PROJECTION, balance=options.balance)
    return means_of(_means(signals, options))


def _means(signals: Signals, options: TargetCosineOptions) -> list[tuple[str, Floats]]:
    """The tasks of the target set and their mean gradients; the set as one task, "", without balance."""
    target = target_set(signals)
    if target.tasks is None or options.balance == "rows":
        return [("", _usable(mean_gradient(target), ""))]
    return [(task, _usable(mean_gradient(_part(target, rows)), task)) for task, rows in tasks_of(target)]


def _part(target: Signals, rows: Ints) -> Signals:
    """The gradients of these samples alone."""
    vectors = {name: each[rows] for name, each in target.vectors.items() if name == PROJECTION}
    return Signals(target.ids[rows], {}, {}, np.zeros(len(rows) + 1, dtype=np.int64), vectors)


def _usable(mean: Floats, task: str) -> Floats:
    if not mean.any():
        what = (
            f"the mean gradient of the target set's task {task}" if task else "the target set's mean gradient"
        )
        raise ValueError(f"{what} is zero: it points nowhere; name another target set")
    return mean


def cosines(signals: Signals, v: Floats) -> Floats:
    """Cosine (N,) of each sample's projected gradient to v (k,), which is not zero; 0 for one without."""
    length = float(np.linalg.norm(v))
    values = np.zeros(len(signals))
    for rows, block in gradients(signals):
        # row by row, not by matrix product, whose last bits depend on which rows are together
        dots, norms = (block * v).sum(axis=1), np.sqrt((block * block).sum(axis=1))
        np.divide(dots, norms * length, out=dots, where=norms > 0)
        values[rows] = dots
    return values
