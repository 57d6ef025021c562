"""HES against sorting each response's entropies by hand, and what it does to the odd sample."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from scorers.method import Method
from scorers.methods.hes import Hes, HesOptions, highest_sums
from scorers.signals import columns
from scorers.signals.columns import Signals
from tests.signal_factory import make_signals, reorder


def slowly(signals: Signals, top: float) -> list[float]:
    found = []
    for start, stop in zip(signals.offsets[:-1], signals.offsets[1:], strict=True):
        entropies = sorted(signals.tokens["entropy"][start:stop].astype(float).tolist(), reverse=True)
        found.append(sum(entropies[: math.ceil(top * len(entropies) - 1e-9)]))
    return found


@pytest.mark.parametrize("top", [0.005, 0.1, 0.34, 1.0])
def test_the_highest_entropies_are_added_up(top: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_BLOCK", 7)
    signals = make_signals(50, seed=1, max_response=60)
    scores = Hes().scores(signals, HesOptions(top=top), 0)["hes"]
    np.testing.assert_allclose(scores, slowly(signals, top), rtol=1e-12)
    order = np.random.default_rng(2).permutation(50)
    assert np.array_equal(highest_sums(reorder(signals, order), top), scores[order])


@pytest.mark.parametrize("tokens", [1, 199, 200, 201, 400, 401, 3000])
def test_as_many_are_counted_as_reach_the_interpolated_percentile(tokens: int) -> None:
    entropy = np.random.default_rng(tokens).permutation(tokens).astype(np.float32)
    signals = replace(
        make_signals(1),
        samples={},
        tokens={"entropy": entropy},
        offsets=np.array([0, tokens]),
        others={},
    )
    reach = entropy[entropy >= np.percentile(entropy, 99.5)]
    assert highest_sums(signals, 0.005).tolist() == [reach.astype(float).sum()]


def test_a_response_of_one_token_counts_it_ties_count_once_and_no_tokens_count_nothing() -> None:
    signals = replace(
        make_signals(3),
        samples={},
        tokens={"entropy": np.array([2.5] + [1.0] * 300, dtype=np.float32)},
        offsets=np.array([0, 1, 301, 301]),
        others={},
    )
    assert highest_sums(signals, 0.005).tolist() == [2.5, 2.0, 0.0]


def test_the_highest_sums_are_kept_and_the_cut_is_reported() -> None:
    signals = make_signals(20, seed=3)
    scores = Hes().scores(signals, HesOptions(), 0)
    selection = Hes().select(signals, scores, 0.25, HesOptions(), 0)
    best = np.argsort(-scores["hes"])[:5]
    assert set(np.flatnonzero(selection.keep)) == set(best)
    assert selection.thresholds == {"hes": scores["hes"][best[-1]]}
    assert selection.token_keep.all()
    assert isinstance(Hes(), Method)


def test_no_share_of_the_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="option top is 0: allowed is a number over 0 and at most 1"):
        HesOptions(top=0)
