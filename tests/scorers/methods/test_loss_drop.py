"""The relative loss drop against plain Python."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scorers.method import Method, Options
from scorers.methods.loss_drop import LossDrop, drop
from tests.signal_factory import make_signals, reorder


def test_the_share_of_the_loss_that_goes_decides() -> None:
    signals = make_signals(30, seed=1)
    before, after = signals.samples["nll"], signals.others["reference"].samples["nll"]
    expected = [(a - b) / a for a, b in zip(before.tolist(), after.tolist(), strict=True)]
    scores = LossDrop().scores(signals, Options(), 0)
    assert scores["loss_drop"].tolist() == pytest.approx(expected, rel=1e-12)
    assert np.array_equal(scores["reference_nll"], after)
    selection = LossDrop().select(signals, scores, 0.2, Options(), 0)
    best = sorted(range(30), key=lambda i: -expected[i])[:6]
    assert np.flatnonzero(selection.keep).tolist() == sorted(best)
    assert selection.thresholds == {"loss_drop": pytest.approx(expected[best[-1]])}
    assert selection.token_keep.all()
    order = np.random.default_rng(2).permutation(30)
    again = LossDrop().scores(reorder(signals, order), Options(), 0)["loss_drop"]
    assert np.array_equal(again, scores["loss_drop"][order])


def test_a_response_that_was_certain_has_nothing_to_lose() -> None:
    found = drop(np.array([0.0, 0.0, 2.0, 2.0, 1e-300]), np.array([0.0, 0.1, 0.0, 3.0, 1.0]))
    assert found[:4].tolist() == [0.0, np.finfo(np.float64).min, 1.0, -0.5]
    assert np.isfinite(found).all()


def test_it_reads_both_models_and_says_what_is_missing() -> None:
    assert isinstance(LossDrop(), Method)
    assert LossDrop().needs(Options()) == {"nll", "reference:nll"}
    with pytest.raises(ValueError, match="name a reference model"):
        LossDrop().scores(replace(make_signals(3), others={}), Options(), 0)
