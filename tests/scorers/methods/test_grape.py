"""GRAPE against a loop over prompts, and rows that have none in common."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.method import Options, Selection
from scorers.methods.grape import Grape
from scorers.signals.columns import Signals
from tests.signal_factory import make_signals, reorder, sample_signals

rows = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([0.5, 1.0, 2.0]) | st.floats(0, 9)), min_size=1, max_size=25
)


def chosen(signals: Signals, share: float) -> Selection:
    return Grape().select(signals, Grape().scores(signals, Options(), 0), share, Options(), 0)


def given_rows(found: list[tuple[int, float]]) -> Signals:
    prompts, nll = zip(*found, strict=True)
    return sample_signals(prompt=np.array(prompts), nll=np.array(nll))


@given(rows, st.sampled_from([0.1, 0.3, 1.0]))
def test_the_most_probable_response_to_each_prompt_is_kept(
    found: list[tuple[int, float]], share: float
) -> None:
    signals = given_rows(found)
    best: dict[int, tuple[float, str]] = {}
    for (prompt, nll), name in zip(found, signals.ids.tolist(), strict=True):
        best[prompt] = min(best.get(prompt, (math.inf, "")), (nll, name))
    most = max(1, math.ceil(share * len(found) - 1e-9))
    expected = {name for _, name in sorted((-math.exp(-nll), name) for nll, name in best.values())[:most]}
    selection = chosen(signals, share)
    assert set(signals.ids[selection.keep].tolist()) == expected
    assert selection.token_keep.all()


def test_rank_and_responses_are_counted_within_the_prompt_in_any_order() -> None:
    signals = make_signals(30, seed=4)
    scores = Grape().scores(signals, Options(), 0)
    prompt, nll, ids = signals.samples["prompt"], signals.samples["nll"], signals.ids
    for i in range(30):
        same = [j for j in range(30) if prompt[j] == prompt[i]]
        before = [j for j in same if (nll[j], ids[j]) < (nll[i], ids[i])]
        assert scores["grape_responses"][i] == len(same)
        assert scores["grape_rank"][i] == 1 + len(before)
        assert scores["grape"][i] == pytest.approx(math.exp(-nll[i]))
    order = np.random.default_rng(5).permutation(30)
    again: dict[str, Any] = Grape().scores(reorder(signals, order), Options(), 0)
    assert all(np.array_equal(again[name], scores[name][order]) for name in scores)


def test_every_row_is_told_why() -> None:
    signals = given_rows([(1, 0.1), (1, 0.2), (2, 0.5), (3, 3.0), (4, 2.0), (4, 2.5)])
    selection = chosen(signals, 1 / 3)
    several, others = "the most probable of the responses to its prompt", "among the 33.3333 % of all rows"
    said = [selection.reasons[i].removeprefix("GRAPE: ") for i in selection.reason]
    assert said == [
        several,
        "another response to its prompt is more probable",
        "the only response to its prompt",
        f"the only response to its prompt, but not {others} that are most probable",
        f"{several}, but not {others} that are most probable",
        "another response to its prompt is more probable",
    ]
    assert selection.thresholds == {"grape": pytest.approx(math.exp(-0.5))}
    assert selection.warnings == ()


def test_a_corpus_without_a_choice_is_kept_and_warned_of() -> None:
    selection = chosen(given_rows([(1, 1.0), (2, 2.0)]), 1.0)
    assert selection.keep.all()
    assert selection.warnings == (
        "grape: no prompt has more than one response, so that there was nothing to choose from",
    )
    nothing = sample_signals(prompt=np.empty(0, np.int64), nll=np.empty(0))
    assert not len(chosen(nothing, 0.5).keep)
