"""The cosine to a target set's gradient, and what it is good for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scorers.method import Method, Options
from scorers.methods.towards import TargetCosine, cosines
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
    scores = TargetCosine().scores(signals, Options(), 0)
    assert scores["target_cosine"] == pytest.approx(expected, rel=1e-12)
    selection = TargetCosine().select(signals, scores, 0.2, Options(), 0)
    best = sorted(range(30), key=lambda i: -expected[i])[:6]
    assert np.flatnonzero(selection.keep).tolist() == sorted(best)
    assert selection.thresholds == {"target_cosine": pytest.approx(expected[best[-1]])}


def test_samples_of_the_targets_kind_are_found_among_others() -> None:
    rng = np.random.default_rng(1)
    kinds = rng.normal(size=(2, 32))
    phi = np.concatenate([kind + 0.5 * rng.normal(size=(50, 32)) for kind in kinds])
    signals = gradient_signals(phi, target=kinds[1] + 0.5 * rng.normal(size=(10, 32)))
    scores = TargetCosine().scores(signals, Options(), 0)
    keep = TargetCosine().select(signals, scores, 0.5, Options(), 0).keep
    assert keep[50:].all()


def test_the_length_of_a_gradient_and_the_order_of_samples_change_nothing() -> None:
    rng = np.random.default_rng(2)
    phi, target = rng.normal(size=(20, 5)), rng.normal(size=(3, 5))
    signals = gradient_signals(phi, target=target)
    longer = gradient_signals(phi * 2.0 ** rng.integers(-9, 9, (20, 1)), target=target)
    score = TargetCosine().scores(signals, Options(), 0)["target_cosine"]
    assert TargetCosine().scores(longer, Options(), 0)["target_cosine"] == pytest.approx(score, rel=1e-12)
    order = rng.permutation(20)
    again = TargetCosine().scores(moved(signals, order), Options(), 0)["target_cosine"]
    assert np.array_equal(again, score[order])


def test_a_sample_without_gradient_points_nowhere() -> None:
    phi = np.ones((3, 2))
    phi[1] = 0
    assert cosines(gradient_signals(phi), np.array([1.0, 1.0])).tolist() == pytest.approx([1, 0, 1])


def test_a_target_that_is_missing_or_points_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="name a target set"):
        TargetCosine().scores(gradient_signals(np.ones((2, 2))), Options(), 0)
    with pytest.raises(ValueError, match="points nowhere"):
        TargetCosine().scores(gradient_signals(np.ones((2, 2)), target=[[1, 1], [-1, -1]]), Options(), 0)


def test_it_is_a_method_that_reads_both_sets() -> None:
    assert isinstance(TargetCosine(), Method)
    assert TargetCosine().needs(Options()) == {"head_grad_projection", "target:head_grad_projection"}
