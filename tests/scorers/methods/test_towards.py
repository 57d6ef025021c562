"""The cosine to a target set's gradient, and what it is good for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scorers.method import Method
from scorers.methods.towards import TargetCosine, TargetCosineOptions, cosines
from scorers.signals.columns import Signals
from tests.gradient_signals import gradient_signals, moved


def test_the_cosine_is_that_of_plain_python() -> None:
    rng = np.random.default_rng(0)
    phi, target = rng.normal(size=(30, 6)), rng.normal(size=(4, 6)) + 1
    signals = gradient_signals(phi, target=target)
    aim = [sum(column) / 4 for column in target.astype(np.float32).T.astype(float).tolist()]
    expected = []
    for row in signals.vectors["head_grad_projection"].astype(float).tolist():
        dot = sum(a * b for a, b in zip(row, aim, strict=True))
        expected.append(dot / math.hypot(*row) / math.hypot(*aim))
    scores = TargetCosine().scores(signals, TargetCosineOptions(), 0)
    assert scores["target_cosine"] == pytest.approx(expected, rel=1e-12)
    selection = TargetCosine().select(signals, scores, 0.2, TargetCosineOptions(), 0)
    best = sorted(range(30), key=lambda i: -expected[i])[:6]
    assert np.flatnonzero(selection.keep).tolist() == sorted(best)
    assert selection.thresholds == {"target_cosine": pytest.approx(expected[best[-1]])}


def test_samples_of_the_targets_kind_are_found_among_others() -> None:
    rng = np.random.default_rng(1)
    kinds = rng.normal(size=(2, 32))
    phi = np.concatenate([kind + 0.5 * rng.normal(size=(50, 32)) for kind in kinds])
    signals = gradient_signals(phi, target=kinds[1] + 0.5 * rng.normal(size=(10, 32)))
    scores = TargetCosine().scores(signals, TargetCosineOptions(), 0)
    keep = TargetCosine().select(signals, scores, 0.5, TargetCosineOptions(), 0).keep
    assert keep[50:].all()


def test_the_length_of_a_gradient_and_the_order_of_samples_change_nothing() -> None:
    rng = np.random.default_rng(2)
    phi, target = rng.normal(size=(20, 5)), rng.normal(size=(3, 5))
    signals = gradient_signals(phi, target=target)
    longer = gradient_signals(phi * 2.0 ** rng.integers(-9, 9, (20, 1)), target=target)
    score = TargetCosine().scores(signals, TargetCosineOptions(), 0)["target_cosine"]
    assert TargetCosine().scores(longer, TargetCosineOptions(), 0)["target_cosine"] == pytest.approx(
        score, rel=1e-12
    )
    order = rng.permutation(20)
    again = TargetCosine().scores(moved(signals, order), TargetCosineOptions(), 0)["target_cosine"]
    assert np.array_equal(again, score[order])


def test_a_sample_without_gradient_points_nowhere() -> None:
    phi = np.ones((3, 2))
    phi[1] = 0
    assert cosines(gradient_signals(phi), np.array([1.0, 1.0])).tolist() == pytest.approx([1, 0, 1])


def test_a_target_that_is_missing_or_points_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="name a target set"):
        TargetCosine().scores(gradient_signals(np.ones((2, 2))), TargetCosineOptions(), 0)
    with pytest.raises(ValueError, match="points nowhere"):
        TargetCosine().scores(
            gradient_signals(np.ones((2, 2)), target=[[1, 1], [-1, -1]]), TargetCosineOptions(), 0
        )


def test_it_is_a_method_that_reads_both_sets() -> None:
    assert isinstance(TargetCosine(), Method)
    assert TargetCosine().needs(TargetCosineOptions()) == {
        "head_grad_projection",
        "target:head_grad_projection",
    }


def tasks_apart() -> tuple[Signals, list[list[float]]]:
    """Thirty samples, of which most are like task b's rows, and five target rows: of tasks a, b, b, a, b."""
    rng = np.random.default_rng(3)
    kinds = rng.normal(size=(2, 8))
    phi = np.concatenate([kinds[0] + rng.normal(size=(6, 8)), kinds[1] + 0.3 * rng.normal(size=(24, 8))])
    target = kinds[[0, 1, 1, 0, 1]] + 0.3 * rng.normal(size=(5, 8))
    signals = gradient_signals(phi, target=target)
    aims = replace(signals.others["target"], tasks=np.array([*"abbab"]), rows=np.array([0, 1, 3, 5, 8]))
    return replace(signals, others={"target": aims}), signals.others["target"].vectors[
        "head_grad_projection"
    ].astype(float).tolist()


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def in_turn(signals: Signals, asks: list[list[float]], turns: list[int], count: int) -> list[int]:
    """The samples that are taken, by whoever's turn it is among `turns`, over and over."""
    rows = signals.vectors["head_grad_projection"].astype(float).tolist()
    left, found = list(range(len(rows))), []
    while len(found) < count:
        ask = asks[turns[len(found) % len(turns)]]
        found.append(max(left, key=lambda s: cosine(rows[s], ask)))
        left.remove(found[-1])
    return found


def test_tasks_take_turns_by_their_mean_gradients() -> None:
    signals, rows = tasks_apart()
    means = [
        [sum(column) / len(of) for column in zip(*(rows[i] for i in of), strict=True)]
        for of in ([0, 3], [1, 2, 4])
    ]
    options = TargetCosineOptions()
    scores = TargetCosine().scores(signals, options, 0)
    phi = signals.vectors["head_grad_projection"].astype(float).tolist()
    assert scores["target_cosine"] == pytest.approx(
        [max(cosine(p, m) for m in means) for p in phi], rel=1e-12
    )
    nearest = ["a" if cosine(p, means[0]) > cosine(p, means[1]) else "b" for p in phi]
    assert scores["nearest_task"].tolist() == nearest
    selection = TargetCosine().select(signals, scores, 0.4, options, 0)
    taken = in_turn(signals, means, [0, 1], 12)
    assert np.argsort(selection.columns["taken_at"])[-12:].tolist() == taken
    why = [selection.reasons[selection.reason[sample]] for sample in taken[:2]]
    assert why == [f"gradient cosine: taken at turn {{turn}} by task {task}" for task in "ab"]
    whole = TargetCosine().select(signals, scores, 0.4, TargetCosineOptions(balance="rows"), 0)
    assert whole.turn is None, "one asker takes the best of all at once"


@pytest.mark.parametrize(
    ("balance", "turns"), [("tasks", [0, 1, 3, 2, 0, 4, 3, 1, 0, 2, 3, 4]), ("rows", [0, 1, 2, 3, 4])]
)
def test_rows_take_turns_within_their_tasks_or_all_alike(balance: Any, turns: list[int]) -> None:
    signals, rows = tasks_apart()
    options = TargetCosineOptions(pick="round-robin", balance=balance)
    scores = TargetCosine().scores(signals, options, 0)
    phi = signals.vectors["head_grad_projection"].astype(float).tolist()
    nearest = [max(range(5), key=lambda r: cosine(p, rows[r])) for p in phi]
    assert scores["nearest_row"].tolist() == [[0, 1, 3, 5, 8][row] for row in nearest]
    assert scores["nearest_task"].tolist() == ["abbab"[row] for row in nearest]
    selection = TargetCosine().select(signals, scores, 1 / 3, options, 0)
    taken = in_turn(signals, rows, turns, 10)
    assert np.argsort(selection.columns["taken_at"])[-10:].tolist() == taken
    why = selection.reasons[selection.reason[taken[1]]]
    assert why == "gradient cosine: taken at turn {turn} by row 1 of task b"


def test_a_target_row_without_gradient_takes_no_turn() -> None:
    signals, rows = tasks_apart()
    target = signals.others["target"]
    vectors = target.vectors["head_grad_projection"].copy()
    vectors[0] = 0
    signals = replace(signals, others={"target": replace(target, vectors={"head_grad_projection": vectors})})
    options = TargetCosineOptions(pick="round-robin")
    selection = TargetCosine().select(signals, TargetCosine().scores(signals, options, 0), 0.2, options, 0)
    taken = in_turn(signals, rows, [3, 1, 3, 2, 3, 4], 6)
    assert np.argsort(selection.columns["taken_at"])[-6:].tolist() == taken
    vectors[:] = 0
    with pytest.raises(ValueError, match="of the whole target set is zero"):
        TargetCosine().scores(signals, options, 0)
