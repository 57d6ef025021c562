"""Token probabilities against a slow loop over samples and tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from scorers.methods.token_prob import TokenProb, TokenProbOptions
from scorers.signals.columns import Signals
from tests.signal_factory import make_signals


def probabilities(signals: Signals) -> dict[str, list[float]]:
    """Of each sample, by its id, the probability of each of its tokens."""
    nll = signals.tokens["nll"].tolist()
    return {
        sample_id: [math.exp(-nll[t]) for t in range(signals.offsets[i], signals.offsets[i + 1])]
        for i, sample_id in enumerate(signals.ids.tolist())
    }


def trained(signals: Signals, options: TokenProbOptions) -> dict[str, list[bool]]:
    """Of each sample, which of its tokens keep their loss."""
    found = {}
    for i, (sample_id, likely) in enumerate(probabilities(signals).items()):
        ends = signals.tokens["is_end"][signals.offsets[i] : signals.offsets[i + 1]].tolist()
        found[sample_id] = [
            p >= options.threshold or (is_end and options.protect_end)
            for p, is_end in zip(likely, ends, strict=True)
        ]
        if not any(found[sample_id]):
            found[sample_id][likely.index(max(likely))] = True
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("protect_end", [True, False])
def test_unlikely_tokens_of_any_sample_are_masked(seed: int, threshold: float, protect_end: bool) -> None:
    signals = make_signals(23, seed)
    options = TokenProbOptions(threshold=threshold, protect_end=protect_end)
    chosen = TokenProb().select(signals, TokenProb().scores(signals, options, 0), 1.0, options, 0)
    expected = trained(signals, options)
    for i, sample_id in enumerate(signals.ids.tolist()):
        here = slice(signals.offsets[i], signals.offsets[i + 1])
        assert chosen.token_keep[here].tolist() == expected[sample_id]
    assert chosen.keep.all()
    assert chosen.token_weight is None


def test_weights_are_the_probabilities_and_no_token_is_masked() -> None:
    signals, options = make_signals(23), TokenProbOptions(mode="weight")
    chosen = TokenProb().select(signals, TokenProb().scores(signals, options, 0), 0.4, options, 0)
    expected = [p for each in probabilities(signals).values() for p in each]
    assert chosen.token_weight is not None
    weights = chosen.token_weight(slice(0, len(expected)))
    assert weights == pytest.approx(expected, rel=1e-5)
    assert weights.dtype == np.float32
    assert np.array_equal(chosen.token_weight(slice(3, 40)), weights[3:40])
    assert chosen.token_keep.all()


def test_a_token_that_cannot_be_weighs_next_to_nothing_but_is_trained_on() -> None:
    signals = make_signals(4)
    never = np.full(len(signals.tokens["nll"]), 900.0, dtype=np.float32)
    never[0] = np.inf
    signals = replace(signals, tokens={**signals.tokens, "nll": never})
    options = TokenProbOptions(mode="weight")
    chosen = TokenProb().select(signals, TokenProb().scores(signals, options, 0), 1.0, options, 0)
    assert chosen.token_weight is not None
    weight = chosen.token_weight(slice(0, len(never)))
    assert 0 < weight.min() == weight.max() < 1e-30


@pytest.mark.parametrize("mode", ["mask", "weight"])
def test_samples_go_by_their_mean_probability(mode: str) -> None:
    signals, options = make_signals(30, 2), TokenProbOptions(mode=mode)  # type: ignore[arg-type]
    scores = TokenProb().scores(signals, options, 0)
    mean = {sample_id: sum(each) / len(each) for sample_id, each in probabilities(signals).items()}
    assert scores["token_prob"] == pytest.approx(list(mean.values()), rel=1e-5)
    chosen = TokenProb().select(signals, scores, 0.3, options, 0)
    kept = sorted(mean, key=lambda sample_id: (-mean[sample_id], sample_id))[:9]
    assert set(signals.ids[chosen.keep]) == set(kept)
    assert chosen.thresholds["token_prob"] == pytest.approx(mean[kept[-1]], rel=1e-5)


def test_the_mask_needs_to_know_ends_only_to_protect_them() -> None:
    needs = TokenProb().needs
    assert needs(TokenProbOptions()) == {"token:nll", "token:is_end"}
    assert needs(TokenProbOptions(protect_end=False)) == {"token:nll"}
    assert needs(TokenProbOptions(mode="weight")) == {"token:nll"}
