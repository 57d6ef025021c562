"""Excess loss against a slow loop over samples and tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from scorers.methods.rho import Rho, RhoOptions
from scorers.selection import cut
from scorers.signals import columns
from scorers.signals.columns import Signals
from tests.signal_factory import make_signals, reorder


def by_hand(signals: Signals, share: float, options: RhoOptions) -> tuple[list[str], set[tuple[str, int]]]:
    """Ids of the kept samples, and (id, place in the response) of their kept tokens."""
    ours, theirs = signals.tokens["nll"], signals.others["reference"].tokens["nll"]
    samples: dict[str, list[tuple[float, bool]]] = {}
    for i, sample_id in enumerate(signals.ids.tolist()):
        span = range(signals.offsets[i], signals.offsets[i + 1])
        samples[sample_id] = [
            (float(ours[t]) - float(theirs[t]), bool(signals.tokens["is_end"][t])) for t in span
        ]
    mean = {sample_id: sum(x for x, _ in tokens) / len(tokens) for sample_id, tokens in samples.items()}
    kept = sorted(samples, key=lambda sample_id: (-mean[sample_id], sample_id))
    kept = kept[: math.ceil(share * len(samples) - 1e-9)]
    ranked = sorted(
        (-excess, sample_id, t, is_end)
        for sample_id in kept
        for t, (excess, is_end) in enumerate(samples[sample_id])
    )
    first: dict[str, int] = {}
    for _, sample_id, t, _ in ranked:
        first.setdefault(sample_id, t)
    must = {(s, t) for _, s, t, is_end in ranked if first[s] == t or (is_end and options.protect_end)}
    budget = math.ceil(options.token_keep * len(ranked) - 1e-9)
    chosen = set(must)
    for _, sample_id, t, _ in ranked:
        if len(chosen) < budget:
            chosen.add((sample_id, t))
    return kept, chosen


def rounded(signals: Signals, decimals: int) -> Signals:
    """With losses of few digits many tokens are equal."""
    return replace(signals, tokens={**signals.tokens, "nll": np.round(signals.tokens["nll"], decimals)})


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("token_keep", [0.01, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("protect_end", [True, False])
@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("decimals", [7, 0])
def test_samples_and_tokens_are_those_of_the_loop(
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    token_keep: float,
    protect_end: bool,
    share: float,
    decimals: int,
) -> None:
    monkeypatch.setattr(columns, "_BLOCK", 5)
    monkeypatch.setattr(cut, "_FEW", 3)
    signals, options = make_signals(23, seed), RhoOptions(token_keep=token_keep, protect_end=protect_end)
    reference = rounded(signals.others["reference"], decimals)
    signals = rounded(replace(signals, others={"reference": reference}), decimals)
    chosen = Rho().select(signals, Rho().scores(signals, options, 0), share, options, 0)
    kept, tokens = by_hand(signals, share, options)
    assert set(signals.ids[chosen.keep]) == set(kept)
    owner = np.repeat(np.arange(len(signals)), signals.lengths)
    found = {
        (str(signals.ids[owner[t]]), int(t - signals.offsets[owner[t]]))
        for t in np.flatnonzero(chosen.token_keep & chosen.keep[owner])
    }
    assert found == tokens


def test_scores_are_the_excess_and_its_mean() -> None:
    signals = make_signals(9)
    excess = signals.tokens["nll"].astype(float) - signals.others["reference"].tokens["nll"].astype(float)
    assert Rho().token_scores(signals, RhoOptions())["rho"] == pytest.approx(excess, rel=1e-6)
    for i, mean in enumerate(Rho().scores(signals, RhoOptions(), 0)["rho"]):
        assert mean == pytest.approx(np.mean(excess[signals.offsets[i] : signals.offsets[i + 1]]))


def test_every_kept_sample_keeps_a_token_and_its_ends() -> None:
    signals, options = make_signals(30), RhoOptions(token_keep=0.01)
    chosen = Rho().select(signals, Rho().scores(signals, options, 0), 1.0, options, 0)
    owner = np.repeat(np.arange(30), signals.lengths)
    assert np.bincount(owner[chosen.token_keep], minlength=30).min() >= 1
    assert chosen.token_keep[signals.tokens["is_end"]].all()


def test_equal_excess_goes_by_sample_id_and_then_by_place() -> None:
    signals = make_signals(20)
    flat = replace(signals, tokens={**signals.tokens, "nll": signals.others["reference"].tokens["nll"]})
    options = RhoOptions(token_keep=0.5, protect_end=False)
    kept = []
    for each in (flat, reorder(flat, np.random.default_rng(1).permutation(20))):
        chosen = Rho().select(each, Rho().scores(each, options, 0), 0.4, options, 0)
        owner = np.repeat(np.arange(20), each.lengths)
        here = np.flatnonzero(chosen.token_keep & chosen.keep[owner])
        kept.append({(each.ids[owner[t]], t - each.offsets[owner[t]]) for t in here})
    assert kept[0] == kept[1]
    assert {sample_id for sample_id, _ in kept[0]} == set(np.sort(signals.ids)[:8])


def test_the_thresholds_are_the_cuts() -> None:
    signals, options = make_signals(30), RhoOptions(token_keep=0.5, protect_end=False)
    scores = Rho().scores(signals, options, 0)
    chosen = Rho().select(signals, scores, 0.5, options, 0)
    assert chosen.thresholds["rho"] == scores["rho"][chosen.keep].min()
    owner = np.repeat(np.arange(30), signals.lengths)
    excess = Rho().token_scores(signals, options)["rho"]
    pruned = excess[chosen.keep[owner] & ~chosen.token_keep]
    assert pruned.max() <= chosen.thresholds["rho_token"] + 1e-6


def test_a_missing_reference_and_one_with_other_tokens_are_named() -> None:
    signals = make_signals(5)
    with pytest.raises(ValueError, match=r"view 'reference' .* was not measured; name a reference model"):
        Rho().scores(replace(signals, others={}), RhoOptions(), 0)
    reference = signals.others["reference"]
    longer = Signals(
        reference.ids,
        reference.samples,
        {"nll": np.append(reference.tokens["nll"], np.float32(1))},
        np.append(reference.offsets[:-1], reference.offsets[-1] + 1),
    )
    with pytest.raises(ValueError, match="for the reference model; use one with the same tokenizer"):
        Rho().scores(replace(signals, others={"reference": longer}), RhoOptions(), 0)
