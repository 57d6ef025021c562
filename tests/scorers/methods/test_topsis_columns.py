"""TOPSIS over named scores: what a criterion may say, where its column comes from; DONOD is a case of it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from scorers.methods.donod import Donod, DonodOptions
from scorers.methods.registry import get
from scorers.methods.topsis_columns import Criterion, TopsisOptions, parse_criteria
from scorers.selection.topsis import topsis
from tests.signal_factory import make_signals, sample_signals

TOPSIS = get("topsis")


def test_donod_is_topsis_over_don_and_nod() -> None:
    signals = make_signals(200, seed=1)
    options = TopsisOptions("donod.don:low:0.5,donod.nod:low:0.5")
    scores = TOPSIS.scores(signals, options, 0)
    donod = Donod().scores(signals, DonodOptions(), 0)
    assert np.array_equal(scores["topsis"], donod["donod"])
    assert np.array_equal(scores["nod"], donod["nod"])
    ours = TOPSIS.select(signals, scores, 0.3, options, 0)
    theirs = Donod().select(signals, donod, 0.3, DonodOptions(), 0)
    assert np.array_equal(ours.keep, theirs.keep)
    assert ours.thresholds["topsis"] == theirs.thresholds["donod"]


def test_signals_and_methods_are_combined_with_their_weights() -> None:
    signals = make_signals(50, seed=2)
    options = TopsisOptions("ppl:high:0.5, entropy:low:0.25 ,length:low,random:high")
    scores = TOPSIS.scores(signals, options, 7)
    assert list(scores) == ["ppl", "entropy", "length", "random", "topsis"]
    table = np.column_stack([scores[name].astype(float) for name in list(scores)[:4]])
    np.testing.assert_allclose(scores["ppl"].astype(float), np.exp(signals.samples["nll"].astype(float)))
    assert np.array_equal(scores["topsis"], topsis(table, [0.5, 0.25, 1, 1], ["high", "low", "low", "high"]))
    assert not np.array_equal(scores["random"], TOPSIS.scores(signals, options, 8)["random"])


def test_it_needs_what_its_criteria_need() -> None:
    assert TOPSIS.needs(TopsisOptions()) == {"nll", "entropy"}
    wanted = TOPSIS.needs(TopsisOptions("donod:high,n_prompt_tokens:low,el2n:high"))
    assert wanted == {"head_grad_norm", "head_grad_dot", "head_norm", "n_prompt_tokens", "el2n"}


def test_a_criterion_is_a_name_a_direction_and_a_weight() -> None:
    assert parse_criteria("ppl:high,donod.nod:low:2e-1") == [
        Criterion("ppl", "high", 1.0),
        Criterion("donod.nod", "low", 0.2),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "criterion '' is not NAME:DIRECTION"),
        ("ppl", "criterion 'ppl' is not NAME:DIRECTION"),
        ("ppl:high,", "criterion '' is not NAME:DIRECTION"),
        ("ppl:high:1:2", "criterion 'ppl:high:1:2' is not NAME:DIRECTION"),
        ("ppl:up", "'ppl:up': direction 'up' is neither high nor low"),
        ("ppl:high:0", "weight '0' is not a number over 0"),
        ("ppl:high:-1", "weight '-1' is not a number over 0"),
        ("ppl:high:nan", "weight 'nan' is not a number over 0"),
        ("ppl:high:much", "weight 'much' is not a number over 0"),
        ("el2n:high,el2n:low", "the column el2n comes twice"),
        ("x" * 1001, "a text of at most 1000"),
    ],
)
def test_criteria_that_cannot_be_used_are_refused_before_anything_is_measured(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        TopsisOptions(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pppl:high", "criterion 'pppl' is no score; known are the methods qtuning, donod"),
        ("topsis:high", "criterion 'topsis' is no score"),
        ("topsis.topsis:high", "criterion 'topsis.topsis' is no score"),
        ("donod.:high", "criterion 'donod.' is no score"),
    ],
)
def test_criteria_that_are_no_scores_are_refused_by_what_it_needs(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        TOPSIS.needs(TopsisOptions(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "donod.dan:high",
            "method donod has no numbers dan; it has head_grad_norm, head_grad_dot, don, nod, donod",
        ),
        ("qtuning:high", "method qtuning has no numbers qtuning; it has ppl, entropy"),
        ("qtuning.nominal_quadrant:high", "method qtuning has no numbers nominal_quadrant"),
    ],
)
def test_columns_that_a_method_does_not_have_are_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TOPSIS.scores(make_signals(5), TopsisOptions(text), 0)


def test_a_value_that_is_not_finite_is_refused() -> None:
    signals = sample_signals(nll=[1.0, 2.0], entropy=[1.0, np.nan])
    with pytest.raises(ValueError, match=r"signal entropy of sample \w+ is nan"):
        TOPSIS.scores(signals, TopsisOptions(), 0)
