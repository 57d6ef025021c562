"""DEALRec's score against plain Python, its selection, and what it reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scorers.method import Method
from scorers.methods.dealrec import DealRec, DealRecOptions, minmax, rank_scaled
from scorers.selection.coverage import cover
from scorers.signals.columns import corpus_settings
from tests.gradient_signals import gradient_signals, moved
from tests.scorers.selection.test_influence import dense


def example(n: int = 40, k: int = 8) -> Any:
    rng = np.random.default_rng(n)
    phi = rng.normal(size=(n, k)) * rng.lognormal(0, 1, (n, 1)) + 0.2
    return gradient_signals(phi, target=rng.normal(size=(6, k)), lora_effort=rng.lognormal(0, 2, n))


def slow_scaled(values: list[float], scaling: str) -> list[float]:
    if scaling == "minmax":
        low, high = min(values), max(values)
        return [(value - low) / (high - low) for value in values]
    ranked = sorted(values)
    return [ranked.index(value) / (len(values) - 1) for value in values]


@pytest.mark.parametrize("risk", ["training", "target"])
@pytest.mark.parametrize("effort", ["head", "lora"])
@pytest.mark.parametrize("scaling", ["minmax", "rank"])
def test_the_score_is_that_of_plain_python(risk: Any, effort: Any, scaling: Any) -> None:
    signals = example()
    options = DealRecOptions(risk=risk, effort=effort, scaling=scaling, effort_weight=0.3, damping=0.2)
    scores = DealRec().scores(signals, options, 0)
    phi = signals.vectors["head_grad_projection"]
    aim = phi if risk == "training" else signals.others["target"].vectors["head_grad_projection"]
    influence = dense(phi, aim.astype(float).mean(axis=0), 0.2)
    work = signals.samples["head_grad_norm" if effort == "head" else "lora_effort"].tolist()
    expected = [
        a + 0.3 * b
        for a, b in zip(slow_scaled(influence.tolist(), scaling), slow_scaled(work, scaling), strict=True)
    ]
    assert scores["influence"] == pytest.approx(influence, rel=1e-9)
    assert scores["effort"].tolist() == work
    assert scores["dealrec"] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_needed_signals_follow_the_options() -> None:
    needs = DealRec().needs
    assert needs(DealRecOptions()) == {"head_grad_projection", "head_grad_norm"}
    assert needs(DealRecOptions(risk="target", effort="lora")) == {
        "head_grad_projection",
        "lora_effort",
        "target:head_grad_projection",
    }
    assert isinstance(DealRec(), Method)


def test_by_lissa_the_fitted_signal_is_the_influence_and_its_settings_are_told() -> None:
    options = DealRecOptions(
        risk="target", curvature="lissa", lissa_steps=70, lissa_damp=0.02, lissa_scale=30.0, lissa_layer="a.b"
    )
    [fitted] = (need for need in DealRec().needs(options) if corpus_settings(need) is not None)
    assert DealRec().needs(options) == {fitted, "head_grad_norm", "target:nll"}
    assert corpus_settings(fitted) == (
        "lissa_influence",
        {"risk": "target", "steps": "70", "damp": "0.02", "scale": "30.0", "layer": "a.b"},
    )
    signals = example()
    values = np.random.default_rng(1).normal(size=len(signals))
    given = replace(signals, samples={**signals.samples, fitted: values})
    scores = DealRec().scores(given, options, 0)
    assert scores["influence"].tolist() == values.tolist()
    assert scores["dealrec"] == pytest.approx(minmax(values) + 0.5 * minmax(scores["effort"]))
    with pytest.raises(ValueError, match=r"lissa_influence.* was not measured"):
        DealRec().scores(signals, options, 0)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.95, 1.0])
def test_the_selection_covers_the_score(share: float) -> None:
    signals = example(100)
    options = DealRecOptions(bins=10)
    scores = DealRec().scores(signals, options, 0)
    selection = DealRec().select(signals, scores, share, options, 7)
    expected = cover(scores["dealrec"], signals.ids, round(100 * share), hard_prune=0.1, bins=10, seed=7)
    assert np.array_equal(selection.keep, expected.keep)
    assert selection.keep.sum() == round(100 * share)
    assert set(selection.columns) == {"bin"}


def test_the_order_of_the_samples_changes_nothing() -> None:
    signals, options = example(60), DealRecOptions(risk="target", scaling="rank")
    order = np.random.default_rng(0).permutation(60)
    shuffled = moved(signals, order)
    scores, again = (DealRec().scores(each, options, 0) for each in (signals, shuffled))
    for name, column in scores.items():
        assert np.array_equal(again[name], column[order]), name
    keep = DealRec().select(signals, scores, 0.3, options, 1).keep
    assert np.array_equal(DealRec().select(shuffled, again, 0.3, options, 1).keep, keep[order])


def test_one_outlier_squeezes_min_max_but_not_ranks() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 1e9])
    assert minmax(values)[:4].max() < 1e-8
    assert rank_scaled(values).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert rank_scaled(np.array([5.0, 5.0, 1.0])).tolist() == [0.75, 0.75, 0.0]


def test_values_without_range_count_nothing() -> None:
    assert minmax(np.full(3, 7.0)).tolist() == [0.0] * 3
    assert minmax(np.empty(0)).tolist() == rank_scaled(np.empty(0)).tolist() == []
    assert rank_scaled(np.array([7.0])).tolist() == [0.0]


@pytest.mark.parametrize("preset", DealRec.presets)
def test_the_presets_are_the_published_settings(preset: str) -> None:
    published = dict(DealRec.presets[preset])
    assert published.pop("keep") == 0.02
    options = DealRecOptions(**published)
    assert options.effort_weight == (0.3 if preset == "paper-games" else 1.0)
    assert (options.bins, options.hard_prune, options.scaling) == (50, 0.1, "minmax")
    assert (options.risk, options.curvature, options.effort) == ("training", "lissa", "lora")
    assert (options.lissa_steps, options.lissa_damp, options.lissa_scale) == (5000, 0.01, 25.0)
