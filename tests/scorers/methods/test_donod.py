"""DON and NOD against a real step in 60-digit arithmetic; DONOD against plain Python."""

from __future__ import annotations

import math
from decimal import Context, Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.methods.donod import Donod, DonodOptions, don_nod
from scorers.selection.topsis import topsis
from scorers.signals.columns import Signals
from tests.signal_factory import make_signals, reorder, sample_ids, sample_signals

DIGITS = Context(prec=60)


def norm(matrix: list[Decimal]) -> Decimal:
    return sum((x * x for x in matrix), Decimal(0)).sqrt()


def real_step(w: np.ndarray, g: np.ndarray, rate: float) -> tuple[Decimal, Decimal]:
    """DON and NOD by taking the step and subtracting norms, in 60 digits."""
    with localcontext(DIGITS):
        old = [Decimal(x) for x in w.ravel().tolist()]
        new = [a - Decimal(rate) * Decimal(b) for a, b in zip(old, g.ravel().tolist(), strict=True)]
        return norm(old) - norm(new), norm([a - b for a, b in zip(old, new, strict=True)])


def closed_form(w: np.ndarray, g: np.ndarray, rate: float) -> tuple[float, float]:
    with localcontext(DIGITS):
        a, b = ([Decimal(x) for x in m.ravel().tolist()] for m in (w, g))
        grad_dot = float(sum((x * y for x, y in zip(a, b, strict=True)), Decimal(0)))
        grad_norm, head_norm = float(norm(b)), float(norm(a))
    don, nod = don_nod(np.array([grad_norm]), np.array([grad_dot]), np.array([head_norm]), rate)
    return float(don[0]), float(nod[0])


@pytest.mark.parametrize("rate", [1e-12, 1e-8, 2e-5, 1e-3, 0.1, 1.0, 30.0])
@pytest.mark.parametrize("size", [1e-4, 1.0, 100.0])
def test_the_closed_form_is_the_real_step_to_fourteen_digits(rate: float, size: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        w, g = rng.normal(size=(7, 5)), size * rng.normal(size=(7, 5))
        don, nod = closed_form(w, g, rate)
        true_don, true_nod = (float(x) for x in real_step(w, g, rate))
        assert nod == pytest.approx(true_nod, rel=1e-14)
        # what the rounding of <W, G> and ||G|| to float64 alone can do to the two terms of DON
        terms = 2 * rate * abs(float((w * g).sum())) + rate**2 * float((g * g).sum())
        assert don == pytest.approx(true_don, rel=1e-14, abs=4e-16 * terms / float(np.linalg.norm(w)))


def test_at_practical_rates_subtracting_fp32_norms_gives_nothing_and_the_closed_form_does() -> None:
    rng = np.random.default_rng(1)
    w, g = rng.normal(size=(200, 50)), rng.normal(size=(200, 50))
    stepped = w.astype(np.float32) - np.float32(1e-9) * g.astype(np.float32)
    assert np.linalg.norm(w.astype(np.float32)) - np.linalg.norm(stepped) == 0
    don, _ = closed_form(w, g, 1e-9)
    assert don == pytest.approx(float(real_step(w, g, 1e-9)[0]), rel=1e-13)


def test_a_gradient_along_the_head_shrinks_it_by_the_step() -> None:
    don, nod = don_nod(np.array([2.0]), np.array([20.0]), np.array([10.0]), 0.5)
    assert don[0] == pytest.approx(1.0)
    assert nod[0] == pytest.approx(1.0)


def test_no_gradient_or_no_head_divides_by_nothing() -> None:
    don, nod = don_nod(np.array([0.0, 0.0, 3.0]), np.zeros(3), np.array([5.0, 0.0, 0.0]), 0.1)
    assert don.tolist() == pytest.approx([0.0, 0.0, -0.3])
    assert nod.tolist() == pytest.approx([0.0, 0.0, 0.3])


def slow_donod(signals: Signals, options: DonodOptions, share: float) -> set[str]:
    prefix = "tied" if options.tied_exact else "head"
    don, nod = [], []
    for norm_g, dot, norm_w in zip(
        signals.samples[f"{prefix}_grad_norm"].tolist(),
        signals.samples[f"{prefix}_grad_dot"].tolist(),
        signals.samples["head_norm"].tolist(),
        strict=True,
    ):
        eta = options.learning_rate
        after = math.sqrt(norm_w**2 - 2 * eta * dot + eta**2 * norm_g**2)
        don.append(norm_w - after)
        nod.append(eta * norm_g)
    table = np.column_stack((don, nod))
    don_end = {1: "high", -1: "low"}[options.don_sign]
    closeness = topsis(table, [options.don_weight, options.nod_weight], [don_end, "low"])
    ranked = sorted(zip((-closeness).tolist(), signals.ids.tolist(), strict=True))
    return {name for _, name in ranked[: max(1, math.ceil(share * len(signals) - 1e-9))]}


# a large rate, so that even the subtraction of norms in the reference keeps enough digits
@pytest.mark.parametrize("n", [1, 2, 3, 50])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_kept_samples_are_those_of_plain_python(n: int, tied: bool, sign: Any) -> None:
    signals = make_signals(n, seed=n)
    options = DonodOptions(learning_rate=0.3, don_sign=sign, tied_exact=tied, don_weight=0.8, nod_weight=0.2)
    scores = Donod().scores(signals, options, 0)
    for share in (0.07, 0.3, 1.0):
        selection = Donod().select(signals, scores, share, options, 0)
        assert set(signals.ids[selection.keep]) == slow_donod(signals, options, share)
        assert selection.thresholds["donod"] == scores["donod"][selection.keep].min()
        assert selection.token_keep.all()


def test_don_is_before_less_after_whichever_end_is_kept_and_by_default_that_is_the_low_one() -> None:
    signals = make_signals(200)
    high, low = (Donod().scores(signals, DonodOptions(don_sign=sign), 0) for sign in (1, -1))
    for name in ("don", "nod"):
        assert np.array_equal(high[name], low[name]), name
    assert np.array_equal(Donod().scores(signals, DonodOptions(), 0)["donod"], low["donod"])
    kept = [Donod().select(signals, scores, 0.5, DonodOptions(), 0).keep for scores in (high, low)]
    means = [float(high["don"][keep].mean()) for keep in kept]
    assert means[0] > means[1]


def test_an_answer_that_surprises_more_than_expected_is_dropped_first() -> None:
    # <W, G> is mean(nll - H): noise, then the answers that the model expects
    dots = [9.0, 8.0, 0.1, 0.0, -0.1, -0.2]
    signals = sample_signals(head_grad_norm=[2.0] * 6, head_grad_dot=dots, head_norm=[50.0] * 6)

    def kept(**options: Any) -> list[bool]:
        given = DonodOptions(**options)
        scores = Donod().scores(signals, given, 0)
        return [bool(x) for x in Donod().select(signals, scores, 4 / 6, given, 0).keep]

    assert kept() == [False, False, True, True, True, True]
    assert kept(don_sign=1) == [True, True, True, True, False, False]


def test_the_needed_signals_follow_the_tied_option_and_no_other_is_read() -> None:
    assert Donod().needs(DonodOptions()) == {"head_grad_norm", "head_grad_dot", "head_norm"}
    tied = DonodOptions(tied_exact=True)
    assert Donod().needs(tied) == {"tied_grad_norm", "tied_grad_dot", "head_norm"}
    signals = make_signals(5)
    columns: Any = {name: signals.samples[name] for name in Donod().needs(tied)}
    only = sample_signals(**columns)
    assert set(Donod().scores(only, tied, 0)) == {"tied_grad_norm", "tied_grad_dot", "don", "nod", "donod"}
    with pytest.raises(ValueError, match="signal head_grad_norm was not measured"):
        Donod().scores(only, DonodOptions(), 0)


@given(st.integers(1, 30), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_order_of_the_samples_changes_nothing(n: int, seed: int, random: Any) -> None:
    signals = make_signals(n, seed, max_turns=1, max_response=1)
    order = np.array(random.sample(range(n), n))
    shuffled, options = reorder(signals, order), DonodOptions()
    scores, moved = Donod().scores(signals, options, 0), Donod().scores(shuffled, options, 0)
    for name, column in scores.items():
        assert np.array_equal(moved[name], column[order]), name
    keep = Donod().select(signals, scores, 0.3, options, 0).keep
    assert np.array_equal(Donod().select(shuffled, moved, 0.3, options, 0).keep, keep[order])


def test_samples_that_are_all_alike_are_kept_by_id() -> None:
    ids = sample_ids(10)
    signals = sample_signals(ids, head_grad_norm=[2.0] * 10, head_grad_dot=[1.0] * 10, head_norm=[5.0] * 10)
    scores = Donod().scores(signals, DonodOptions(), 0)
    assert scores["donod"].tolist() == [0.5] * 10
    selection = Donod().select(signals, scores, 0.3, DonodOptions(), 0)
    assert set(ids[selection.keep]) == set(sorted(ids.tolist())[:3])
    assert {selection.reasons[i] for i in selection.reason} == {
        "DONOD closeness (to low DON, low NOD) among the highest 30 %",
        "DONOD closeness (to low DON, low NOD) not among the highest 30 %",
    }


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("learning_rate", 0.0, "a number over 0"),
        ("learning_rate", math.nan, "a number over 0"),
        ("don_sign", 2, "one of 1, -1"),
        ("don_sign", True, "one of 1, -1"),
        ("tied_exact", 1, "true or false"),
        ("nod_weight", -1.0, "a number over 0"),
        ("don_weight", "half", "a number over 0"),
    ],
)
def test_an_option_out_of_range_is_named_with_what_is_allowed(option: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"option {option} is .*: allowed is {allowed}"):
        DonodOptions(**{option: value})


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_signal_that_is_not_a_number_names_signal_and_sample(bad: float) -> None:
    ids = sample_ids(3)
    signals = sample_signals(ids, head_grad_norm=[1, bad, 1], head_grad_dot=[1, 1, 1], head_norm=[1, 1, 1])
    with pytest.raises(ValueError, match=f"head_grad_norm of sample {ids[1]} is {bad}"):
        Donod().scores(signals, DonodOptions(), 0)
