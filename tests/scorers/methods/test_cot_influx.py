"""Coarse to fine against plain loops, and the budget that it keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.method import Selection
from scorers.methods.cot_influx import CotInflux, CotInfluxOptions
from scorers.selection import cut
from scorers.signals import columns
from scorers.signals.columns import Signals
from tests.signal_factory import make_signals, reorder

FIELDS: Any = ["entropy", "nll", "el2n", "n_response_tokens"]


def run(signals: Signals, share: float, options: CotInfluxOptions | None = None) -> Selection:
    options = options or CotInfluxOptions()
    return CotInflux().select(signals, CotInflux().scores(signals, options, 0), share, options, 0)


def slow(signals: Signals, share: float, options: CotInfluxOptions) -> tuple[set[int], set[int]]:
    """Indices of the samples kept, and of their tokens that are kept."""
    nll = signals.tokens["nll"].astype(float).tolist()
    spans = [range(a, b) for a, b in zip(signals.offsets[:-1], signals.offsets[1:], strict=True)]
    budget = int(share * len(nll) + 1e-9)
    sign = -1 if options.prefer == "high" else 1
    values = signals.samples[options.rank_by].astype(float)
    ranking = sorted(range(len(spans)), key=lambda i: (sign * values[i], signals.ids[i]))
    must = []
    for span in spans:
        ends = [t for t in span if options.protect_end and signals.tokens["is_end"][t]]
        must.append(ends or [max(span, key=lambda t: nll[t])])
    chosen: list[int] = []
    for i in ranking:
        tokens = sum(len(spans[j]) for j in [*chosen, i])
        fits = tokens * options.token_keep <= budget + 1e-9
        if chosen and not (fits and sum(len(must[j]) for j in [*chosen, i]) <= budget):
            break
        chosen.append(i)
    kept = {t for i in chosen for t in must[i]}
    rest = [(-nll[t], place, t) for place, i in enumerate(chosen) for t in spans[i] if t not in kept]
    kept |= {t for *_, t in sorted(rest)[: max(0, budget - len(kept))]}
    return set(chosen), kept


@settings(max_examples=120)
@given(
    st.integers(1, 30),
    st.integers(0, 999),
    st.sampled_from([0.01, 0.1, 0.3, 0.5, 1.0]) | st.floats(0.001, 1),
    st.sampled_from(FIELDS),
    st.sampled_from(["high", "low"]),
    st.sampled_from([0.1, 0.5, 0.7, 1.0]),
    st.booleans(),
)
def test_samples_and_tokens_are_those_of_the_loops(
    n: int, seed: int, share: float, field: Any, prefer: Any, token_keep: float, protect: bool
) -> None:
    signals = make_signals(n, seed)
    options = CotInfluxOptions(rank_by=field, prefer=prefer, token_keep=token_keep, protect_end=protect)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "_BLOCK", 4)
        patch.setattr(cut, "_FEW", 2)
        selection = run(signals, share, options)
    chosen, kept = slow(signals, share, options)
    assert set(np.flatnonzero(selection.keep)) == chosen
    owner = np.repeat(np.arange(n), signals.lengths)
    assert set(np.flatnonzero(selection.token_keep & selection.keep[owner])) == kept
    assert selection.token_keep[~selection.keep[owner]].all()
    assert selection.reason.tolist() == np.where(selection.keep, 0, 1).tolist()


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 1.0])
def test_the_budget_is_spent_to_the_token_and_reaches_more_samples_than_whole_ones_would(
    share: float,
) -> None:
    signals = make_signals(500, seed=1)
    owner = np.repeat(np.arange(500), signals.lengths)
    pruned, whole = (run(signals, share, CotInfluxOptions(token_keep=keep)) for keep in (0.5, 1.0))
    budget = int(share * signals.offsets[-1] + 1e-9)
    kept = int((pruned.token_keep & pruned.keep[owner]).sum())
    if share <= 0.5:
        assert kept == budget
        assert pruned.keep.sum() > 1.5 * whole.keep.sum()
    else:
        assert kept == int((whole.token_keep & whole.keep[owner]).sum()) == signals.offsets[-1]
    assert whole.token_keep.all()
    assert int(whole.keep[owner].sum()) <= budget


def test_the_order_of_the_samples_changes_nothing() -> None:
    signals = make_signals(80, seed=6)
    order = np.random.default_rng(2).permutation(80)
    before, after = run(signals, 0.3), run(reorder(signals, order), 0.3)
    assert np.array_equal(after.keep, before.keep[order])
    moved = reorder(Signals(signals.ids, {}, {"keep": before.token_keep}, signals.offsets), order)
    assert np.array_equal(after.token_keep, moved.tokens["keep"])
    assert after.thresholds == before.thresholds


def test_end_tokens_stay_however_predictable_they_are() -> None:
    signals = make_signals(60, seed=3)
    ends = signals.tokens["is_end"]
    signals.tokens["nll"][ends] = 0  # type: ignore[index]
    protected, free = (run(signals, 0.4, CotInfluxOptions(protect_end=keep)) for keep in (True, False))
    assert protected.token_keep[ends].all()
    assert not free.token_keep[ends].all()


def test_nothing_in_nothing_out() -> None:
    selection = run(make_signals(0), 0.5)
    assert selection.keep.shape == selection.token_keep.shape == (0,)
    assert selection.thresholds == {}


def test_the_thresholds_are_the_last_example_and_the_last_token() -> None:
    signals = make_signals(100, seed=4)
    selection = run(signals, 0.3)
    assert selection.thresholds["cot_influx"] == signals.samples["el2n"][selection.keep].min()
    owner = np.repeat(np.arange(100), signals.lengths)
    inside = selection.keep[owner] & ~signals.tokens["is_end"].astype(bool)
    lost = signals.tokens["nll"][inside & ~selection.token_keep]
    assert selection.thresholds["token_nll"] >= lost.max()
    assert selection.thresholds["token_nll"] in signals.tokens["nll"][inside & selection.token_keep]
