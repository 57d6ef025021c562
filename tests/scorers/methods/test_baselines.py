"""ppl, el2n, length and random against plain Python."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.method import Options
from scorers.methods.el2n import El2n, El2nOptions
from scorers.methods.length import Length
from scorers.methods.ppl import Ppl, PplOptions, perplexity
from scorers.methods.random_control import Random
from tests.signal_factory import make_signals, reorder, sample_ids, sample_signals

levels = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 40.0]) | st.floats(0, 10), min_size=1, max_size=30)
shares = st.sampled_from([0.01, 0.07, 0.25, 0.3, 0.5, 0.99, 1.0])


def kept_ids(method: Any, signals: Any, share: float, options: Any, seed: int = 0) -> set[str]:
    selection = method.select(signals, method.scores(signals, options, seed), share, options, seed)
    assert selection.token_keep.all()
    assert selection.token_keep.shape == (int(signals.offsets[-1]),)
    assert selection.reason.shape == selection.keep.shape
    assert selection.reason.max() < len(selection.reasons)
    return set(signals.ids[selection.keep].tolist())


def first(keys: list[tuple[float, str]], share: float) -> set[str]:
    return {name for _, name in sorted(keys)[: max(1, math.ceil(share * len(keys) - 1e-9))]}


# perplexity


@given(levels, shares)
def test_ppl_keeps_the_lowest_the_highest_or_the_closest_to_the_median_rank(
    nll: list[float], share: float
) -> None:
    signals = sample_signals(nll=nll)
    ids, n = signals.ids.tolist(), len(nll)
    ppl = Ppl().scores(signals, PplOptions(), 0)["ppl"].tolist()
    np.testing.assert_allclose(ppl, [math.exp(x) for x in nll], rtol=1e-15)
    low = kept_ids(Ppl(), signals, share, PplOptions())
    assert low == first(list(zip(ppl, ids, strict=True)), share)
    high = kept_ids(Ppl(), signals, share, PplOptions(prefer="high"))
    assert high == first([(-x, i) for x, i in zip(ppl, ids, strict=True)], share)
    ranks = [sum(y < x for y in ppl) + (sum(y == x for y in ppl) - 1) / 2 for x in ppl]
    middle = kept_ids(Ppl(), signals, share, PplOptions(prefer="middle"))
    assert middle == first([(abs(r - (n - 1) / 2), i) for r, i in zip(ranks, ids, strict=True)], share)


def test_the_ppl_cut_is_reported_in_the_unit_of_the_score() -> None:
    signals = sample_signals(nll=np.log([5.0, 1.0, 3.0, 2.0]))
    scores = Ppl().scores(signals, PplOptions(), 0)
    low = Ppl().select(signals, scores, 0.5, PplOptions(), 0)
    assert low.thresholds["ppl"] == pytest.approx(2.0)
    assert [low.reasons[i] for i in low.reason] == [
        "perplexity not among the lowest 50 %",
        "perplexity among the lowest 50 %",
        "perplexity not among the lowest 50 %",
        "perplexity among the lowest 50 %",
    ]
    high = Ppl().select(signals, scores, 0.5, PplOptions(prefer="high"), 0)
    assert high.thresholds["ppl"] == pytest.approx(3.0)


def test_perplexity_is_exp_until_it_would_overflow_and_rises_beyond() -> None:
    nll = np.array([0.0, 1e-9, 1.0, 88.8, 699.9, 700.0])
    assert np.array_equal(perplexity(nll), np.exp(nll))
    beyond = perplexity([700.0, 700.001, 701.0, 709.0, 710.0, 800.0, 5000.0, 1e6, math.inf])
    assert np.isfinite(beyond).all()
    assert (np.diff(beyond) > 0).all()
    assert np.isfinite(2 * beyond).all()
    assert np.isnan(perplexity([math.nan])).all()


def test_an_infinite_loss_ranks_highest_and_a_missing_number_is_refused() -> None:
    signals = sample_signals(nll=[1.0, math.inf, 800.0])
    assert kept_ids(Ppl(), signals, 0.3, PplOptions(prefer="high")) == {signals.ids[1]}
    with pytest.raises(ValueError, match=r"signal nll of sample .* is nan; leave out"):
        Ppl().scores(sample_signals(nll=[1.0, math.nan]), PplOptions(), 0)


def test_an_unknown_preference_is_refused_with_the_known_ones() -> None:
    unknown: Any = "best"
    with pytest.raises(
        ValueError, match="option prefer is 'best': allowed is one of 'low', 'high', 'middle'"
    ):
        PplOptions(prefer=unknown)


# EL2N


@given(levels, shares, st.sampled_from([0.0, 0.1, 0.29, 0.5, 0.99, 1 - 1e-10]))
def test_el2n_keeps_the_hardest_below_the_cut(el2n: list[float], share: float, cut: float) -> None:
    signals = sample_signals(el2n=el2n)
    n = len(el2n)
    hardest_first = [i for _, i in sorted((-x, i) for x, i in zip(el2n, signals.ids.tolist(), strict=True))]
    dropped = min(math.floor(cut * n + 1e-9), n - 1)
    expected = hardest_first[dropped:][: max(1, math.ceil(share * n - 1e-9))]
    assert kept_ids(El2n(), signals, share, El2nOptions(cut_hardest=cut)) == set(expected)


def test_el2n_tells_the_cut_from_the_too_easy() -> None:
    signals = sample_signals(el2n=np.arange(10) / 10)
    options = El2nOptions(cut_hardest=0.2)
    selection = El2n().select(signals, El2n().scores(signals, options, 0), 0.3, options, 0)
    assert selection.keep.nonzero()[0].tolist() == [5, 6, 7]
    assert [selection.reasons[i] for i in selection.reason[[0, 5, 9]]] == [
        "EL2N not among the hardest 30 %",
        "EL2N among the hardest 30 %",
        "EL2N among the very hardest 20 %, cut as likely noise",
    ]
    assert selection.thresholds == {"el2n_kept": 0.5, "el2n_cut": 0.8}


@pytest.mark.parametrize("cut", [-0.1, 1.0, math.nan])
def test_an_el2n_cut_out_of_range_is_refused(cut: float) -> None:
    with pytest.raises(
        ValueError, match=r"option cut_hardest is .*: allowed is a number at least 0 and under 1"
    ):
        El2nOptions(cut_hardest=cut)


# length and random


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), shares)
def test_length_keeps_the_longest_responses(lengths: list[int], share: float) -> None:
    signals = sample_signals(n_response_tokens=lengths)
    expected = first([(-x, i) for x, i in zip(lengths, signals.ids.tolist(), strict=True)], share)
    assert kept_ids(Length(), signals, share, Options()) == expected
    assert Length().scores(signals, Options(), 0)["length"].tolist() == lengths


def test_random_keeps_the_same_samples_in_any_order_and_a_share_contains_the_smaller_ones() -> None:
    signals = make_signals(200)
    order = np.random.default_rng(5).permutation(200)
    small, large = (kept_ids(Random(), signals, share, Options(), 1) for share in (0.2, 0.6))
    assert len(small) == 40
    assert small < large
    assert kept_ids(Random(), reorder(signals, order), 0.2, Options(), 1) == small
    assert kept_ids(Random(), signals, 0.2, Options(), 2) != small


# all of them


@pytest.mark.parametrize(
    ("method", "options"),
    [(Ppl(), PplOptions(prefer=p)) for p in ("low", "high", "middle")]
    + [
        (El2n(), El2nOptions()),
        (El2n(), El2nOptions(cut_hardest=0.3)),
        (Length(), Options()),
        (Random(), Options()),
    ],
)
def test_equal_scores_are_decided_by_id_and_nothing_can_be_pruned_to_nothing(
    method: Any, options: Any
) -> None:
    for n in (0, 1, 2, 3, 10):
        ids = sample_ids(n)
        signals = sample_signals(ids, nll=np.ones(n), el2n=np.ones(n), n_response_tokens=np.ones(n, int))
        scores = method.scores(signals, options, 0)
        for share in (1e-9, 0.5, 1.0):
            keep = method.select(signals, scores, share, options, 0).keep
            assert keep.any() or n == 0
        if method.name != "random":
            smallest = sorted(ids.tolist())
            dropped = min(math.floor(getattr(options, "cut_hardest", 0) * n + 1e-9), max(0, n - 1))
            keep = method.select(signals, scores, 0.3, options, 0).keep
            assert set(ids[keep]) == set(smallest[dropped:][: max(1, math.ceil(0.3 * n))])


@pytest.mark.parametrize("method", [Ppl(), El2n(), Length(), Random()])
def test_a_share_out_of_range_is_refused(method: Any) -> None:
    signals, options = make_signals(4), method.options()
    with pytest.raises(ValueError, match=r"keep share is 1\.5"):
        method.select(signals, method.scores(signals, options, 0), 1.5, options, 0)
