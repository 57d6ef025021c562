"""CCS over each base signal: the coverage selection on the column that was asked for."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from scorers.method import Method
from scorers.methods.ccs import Ccs, CcsOptions
from scorers.methods.ppl import perplexity
from scorers.selection.coverage import cover
from scorers.shares import count_to_keep
from tests.signal_factory import make_signals, sample_ids, sample_signals

SCORES = get_args(get_type_hints(CcsOptions)["score"])


def test_it_is_a_method() -> None:
    assert isinstance(Ccs(), Method)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("hardest", ["high", "low"])
def test_the_kept_samples_are_those_of_the_coverage_selection(score: Any, hardest: Any) -> None:
    signals = make_signals(60, seed=3)
    options = CcsOptions(score=score, hardest=hardest, hard_prune=0.2, bins=8)
    scores = Ccs().scores(signals, options, 0)
    signal = {"ppl": "nll", "length": "n_response_tokens"}.get(score, score)
    assert Ccs().needs(options) == {signal}
    column = signals.samples[signal].astype(float)
    column = perplexity(column) if score == "ppl" else column
    assert np.array_equal(scores["ccs"], column)
    for share in (0.05, 0.5, 1.0):
        selection = Ccs().select(signals, scores, share, options, 4)
        sign = 1 if hardest == "high" else -1
        m = count_to_keep(share, 60)
        expected = cover(sign * column, signals.ids, m, hard_prune=0.2, bins=8, seed=4)
        assert np.array_equal(selection.keep, expected.keep)
        assert np.array_equal(selection.columns["bin"], expected.bin)


def test_an_infinite_loss_has_a_perplexity_but_no_bin_of_its_own_as_nll() -> None:
    signals = sample_signals(sample_ids(3), nll=[1.0, np.inf, 2.0])
    assert np.isfinite(Ccs().scores(signals, CcsOptions(score="ppl"), 0)["ccs"]).all()
    with pytest.raises(ValueError, match=r"signal nll of sample .* is inf"):
        Ccs().scores(signals, CcsOptions(score="nll"), 0)
