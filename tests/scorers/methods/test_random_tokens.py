"""Random tokens: as many of each sample as its share, drawn alike whatever else is in the corpus."""

from __future__ import annotations

import numpy as np
import pytest

from scorers.method import Options, Selection
from scorers.methods.random_control import Random
from scorers.methods.random_tokens import RandomTokens, RandomTokensOptions
from scorers.signals import columns
from scorers.signals.columns import Signals
from tests.signal_factory import make_signals, reorder


def selected(signals: Signals, share: float = 1.0, seed: int = 0, **options: object) -> Selection:
    given = RandomTokensOptions(**options)  # type: ignore[arg-type]
    return RandomTokens().select(signals, RandomTokens().scores(signals, given, seed), share, given, seed)


def of_samples(signals: Signals, chosen: Selection) -> dict[str, list[bool]]:
    parts = np.split(chosen.token_keep, signals.offsets[1:-1])
    return {sample_id: part.tolist() for sample_id, part in zip(signals.ids.tolist(), parts, strict=True)}


@pytest.mark.parametrize("token_keep", [0.01, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("protect_end", [True, False])
def test_each_sample_keeps_its_share_of_tokens_and_ends_before_others(
    token_keep: float, protect_end: bool
) -> None:
    signals = make_signals(40, 1)
    chosen = selected(signals, token_keep=token_keep, protect_end=protect_end)
    for i, kept in enumerate(of_samples(signals, chosen).values()):
        ends = signals.tokens["is_end"][signals.offsets[i] : signals.offsets[i + 1]]
        budget = max(1, int(token_keep * len(kept) + 1e-9))
        must = int(ends.sum()) if protect_end else 0
        assert sum(kept) == max(budget, must)
        if protect_end:
            assert np.array(kept)[ends].all()


def test_samples_are_those_of_random() -> None:
    signals = make_signals(40)
    same = Random().select(signals, Random().scores(signals, Options(), 3), 0.4, Options(), 3)
    assert np.array_equal(selected(signals, 0.4, 3).keep, same.keep)


def test_a_samples_tokens_are_the_same_in_any_corpus_and_others_with_another_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signals = make_signals(40)
    first = of_samples(signals, selected(signals))
    monkeypatch.setattr(columns, "_BLOCK", 7)
    other = reorder(signals, np.random.default_rng(1).permutation(40)[:25])
    again = of_samples(other, selected(other))
    assert again == {sample_id: first[sample_id] for sample_id in again}
    assert of_samples(signals, selected(signals, seed=1)) != first


def test_no_place_of_a_response_is_drawn_more_than_another() -> None:
    signals = make_signals(3000, max_turns=1, max_response=6)
    kept = of_samples(signals, selected(signals, token_keep=0.5, protect_end=False))
    drawn = np.array([each for each in kept.values() if len(each) == 6])
    assert len(drawn) > 300
    # Of n fair draws at a half, four deviations on either side.
    assert np.abs(drawn.mean(axis=0) - 0.5).max() < 2 / len(drawn) ** 0.5
    pairs = (drawn[:, :, None] & drawn[:, None, :]).mean(axis=0)[~np.eye(6, dtype=np.bool_)]
    assert np.abs(pairs - 0.2).max() < 4 * (0.2 * 0.8 / len(drawn)) ** 0.5
