"""UPD against its formula, token by token in plain Python."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from scorers.method import Options
from scorers.methods.upd import Upd, difficulty
from scorers.signals import columns
from scorers.signals.columns import Signals
from tests.signal_factory import make_signals


def slowly(signals: Signals) -> list[float]:
    found = []
    for i in range(len(signals)):
        tokens = range(int(signals.offsets[i]), int(signals.offsets[i + 1]))
        widest = math.log(int(signals.samples["vocabulary"][i]))
        parts = [
            1
            / (1 + math.exp(-float(signals.tokens["nll"][t])))
            * max(0.0, 1 - float(signals.tokens["entropy"][t]) / widest)
            for t in tokens
        ]
        found.append(sum(parts) / max(1, len(parts)))
    return found


def test_difficulty_is_the_mean_over_the_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_BLOCK", 7)
    signals = make_signals(40, seed=1)
    scores = Upd().scores(signals, Options(), 0)
    np.testing.assert_allclose(scores["upd"], slowly(signals), rtol=1e-12)
    selection = Upd().select(signals, scores, 0.2, Options(), 0)
    assert set(np.flatnonzero(selection.keep)) == set(np.argsort(-scores["upd"])[:8])


def test_a_surprise_counts_where_the_model_was_sure_and_hardly_where_it_was_not() -> None:
    def one(nll: float, entropy: float) -> float:
        signals = replace(
            make_signals(1),
            samples={"vocabulary": np.array([100])},
            tokens={"nll": np.array([nll], np.float32), "entropy": np.array([entropy], np.float32)},
            offsets=np.array([0, 1]),
            others={},
        )
        return float(difficulty(signals)[0])

    assert one(50.0, 0.0) == pytest.approx(1)
    assert one(0.0, 0.0) == pytest.approx(0.5)
    assert one(3.0, math.log(100) + 1e-6) == pytest.approx(0, abs=1e-7)
    assert one(5.0, 1.0) > one(1.0, 1.0) > one(1.0, 3.0)
