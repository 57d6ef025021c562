"""RDS+ against its rule in plain Python."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from scorers.methods.rds import Rds, RdsOptions
from scorers.signals.columns import Signals
from tests.signal_factory import make_signals


def cosines(signals: Signals) -> list[list[float]]:
    """Of each sample its cosine to each row of the target set, one number after the other."""
    rows, asks = (
        each.vectors["weighted_hidden"][np.arange(len(each))].astype(float).tolist()
        for each in (signals, signals.others["target"])
    )
    return [
        [sum(a * b for a, b in zip(r, q, strict=True)) / math.hypot(*r) / math.hypot(*q) for q in asks]
        for r in rows
    ]


def taken(table: list[list[float]], turns: list[list[int]], count: int) -> list[int]:
    """By the double loop: whose turn it is, over and over, each a set of target rows."""
    left, found = set(range(len(table))), []
    while len(found) < count:
        rows = turns[len(found) % len(turns)]
        found.append(max(left, key=lambda s: max(table[s][q] for q in rows)))
        left.remove(found[-1])
    return found


TASKS = "aabbbab"
A, B = [0, 1, 5], [2, 3, 4, 6]
IN_TASKS = [[row] for at in range(12) for row in (A[at % 3], B[at % 4])]
CASES = [
    (RdsOptions(), IN_TASKS),
    (RdsOptions(balance="rows"), [[row] for row in range(7)]),
    (RdsOptions(pick="max"), [A, B]),
    (RdsOptions(pick="max", balance="rows"), [[*A, *B]]),
]


@pytest.mark.parametrize(("options", "turns"), CASES, ids=str)
def test_what_is_kept_is_what_the_double_loop_takes(options: RdsOptions, turns: list[list[int]]) -> None:
    signals = make_signals(40, seed=8)
    table, scores = cosines(signals), Rds().scores(signals, options, 0)
    assert scores["rds"] == pytest.approx([max(each) for each in table], abs=1e-6)
    nearest = [each.index(max(each)) for each in table]
    assert scores["nearest_row"].tolist() == [10 + row for row in nearest]
    assert scores["nearest_task"].tolist() == [TASKS[row] for row in nearest]
    for share, count in ((0.025, 1), (0.3, 12)):
        selection = Rds().select(signals, scores, share, options, 0)
        assert np.flatnonzero(selection.keep).tolist() == sorted(taken(table, turns, count))
        assert selection.thresholds["rds"] == scores["rds"][selection.keep].min()


def test_a_reason_names_the_row_the_task_and_the_turn() -> None:
    signals = make_signals(40, seed=8)
    scores = Rds().scores(signals, RdsOptions(), 0)
    selection = Rds().select(signals, scores, 0.1, RdsOptions(), 0)
    order = taken(cosines(signals), IN_TASKS, 4)
    assert [selection.columns["taken_at"][sample] for sample in order] == [1, 2, 3, 4]
    assert [selection.reasons[selection.reason[sample]] for sample in order] == [
        f"RDS+: taken at turn {{turn}} by row {row} of task {task}"
        for row, task in ((10, "a"), (12, "b"), (11, "a"), (13, "b"))
    ]
    left = selection.reasons[selection.reason[np.flatnonzero(~selection.keep)[0]]]
    assert left == "RDS+: not among the 10 % that the target set took in turn"


def test_a_target_set_of_one_task_needs_no_name_for_it() -> None:
    signals = make_signals(40, seed=8)
    plain = replace(signals.others["target"], tasks=None, rows=None)
    signals = replace(signals, others={"target": plain})
    scores = Rds().scores(signals, RdsOptions(), 0)
    assert scores.keys() == {"rds", "nearest_row"}
    selection = Rds().select(signals, scores, 0.3, RdsOptions(), 0)
    assert np.flatnonzero(selection.keep).tolist() == sorted(
        taken(cosines(signals), [[row] for row in range(7)], 12)
    )
    assert selection.reasons[0] == "RDS+: taken at turn {turn} by row 0 of the target set"


def test_a_target_row_that_is_not_finite_is_named() -> None:
    signals = make_signals(5)
    target = signals.others["target"]
    vectors = target.vectors["weighted_hidden"][np.arange(7)]
    vectors[3, 1] = np.nan
    broken = replace(target, vectors={"weighted_hidden": vectors})
    with pytest.raises(
        ValueError, match=f"weighted_hidden of sample {target.ids[3]} of the target set is not"
    ):
        Rds().scores(replace(signals, others={"target": broken}), RdsOptions(), 0)
