"""SFPrompt: each group pruned on its own, the counts shared out exactly."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.method import Selection
from scorers.methods.el2n import El2n, El2nOptions
from scorers.methods.sfprompt import SfPrompt, SfPromptOptions
from scorers.signals.columns import Signals
from tests.signal_factory import sample_ids


def grouped(el2n: Any, group: Any, ids: Any = None) -> Signals:
    """Samples whose vectors lie on the axis of their group."""
    n = len(el2n)
    ids = sample_ids(n) if ids is None else ids
    vectors = np.eye(8, dtype=np.float32)[np.asarray(group, dtype=int)]
    return Signals(ids, {"el2n": np.asarray(el2n, float)}, {}, np.arange(n + 1), {"mean_hidden": vectors})


def run(signals: Signals, share: float, options: SfPromptOptions | None = None) -> Selection:
    options = options or SfPromptOptions()
    return SfPrompt().select(signals, SfPrompt().scores(signals, options, 0), share, options, 0)


def test_each_group_keeps_its_hardest_however_easy_they_are() -> None:
    # three topics of 10, 20 and 30 samples, each harder than all of the one before
    topic = np.repeat([0, 1, 2], [10, 20, 30])
    el2n = topic + np.random.default_rng(0).random(60) / 2
    selection = run(grouped(el2n, topic), 0.3, SfPromptOptions(groups=3))
    for t, count in ((0, 3), (1, 6), (2, 9)):
        hardest = np.flatnonzero(topic == t)[np.argsort(-el2n[topic == t])[:count]]
        assert sorted(hardest) == np.flatnonzero(selection.keep & (topic == t)).tolist()
    kept = [el2n[selection.keep & (topic == t)].min() for t in range(3)]
    assert selection.thresholds == {"el2n_lowest": min(kept), "el2n_highest": max(kept)}


sizes = st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(sum)


@settings(max_examples=100)
@given(sizes, st.integers(1, 100))
def test_the_counts_add_up_and_no_group_is_off_by_one_or_more(sizes: list[int], percent: int) -> None:
    share = percent / 100
    group = np.repeat(np.arange(len(sizes)), sizes)
    n = len(group)
    signals = grouped(np.random.default_rng(n).random(n), group)
    scores = {"el2n": signals.samples["el2n"], "group": group}
    selection = SfPrompt().select(signals, scores, share, SfPromptOptions(), 0)
    assert selection.keep.sum() == -(-Fraction(percent * n, 100) // 1)
    for g, size in enumerate(sizes):
        kept, fair = int(selection.keep[group == g].sum()), Fraction(percent * size, 100)
        assert fair - 1 < kept < fair + 1


@settings(max_examples=50)
@given(st.lists(st.sampled_from([0.1, 0.5, 0.5, 1.2]), min_size=1, max_size=30), st.floats(0.01, 1))
def test_one_group_is_el2n(el2n: list[float], share: float) -> None:
    signals = grouped(el2n, [0] * len(el2n))
    options = SfPromptOptions(groups=1)
    assert SfPrompt().needs(options) == {"el2n"}
    plain = El2n().select(signals, El2n().scores(signals, El2nOptions(), 0), share, El2nOptions(), 0)
    assert np.array_equal(run(signals, share, options).keep, plain.keep)


def test_the_order_of_the_rows_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    ids, el2n, topic = sample_ids(200), rng.random(200), rng.integers(0, 8, 200)
    order = rng.permutation(200)
    options = SfPromptOptions(groups=5)
    before, after = (
        run(grouped(el2n, topic, ids), 0.3, options),
        run(grouped(el2n[order], topic[order], ids[order]), 0.3, options),
    )
    assert np.array_equal(after.keep, before.keep[order])


def test_an_empty_corpus_gives_empty_masks() -> None:
    selection = run(grouped([], []), 0.5)
    assert selection.keep.shape == (0,)
    assert selection.thresholds == {}


def test_embeddings_that_were_not_measured_are_named() -> None:
    signals = Signals(sample_ids(2), {"el2n": np.ones(2)}, {}, np.arange(3))
    with pytest.raises(ValueError, match="mean_hidden was not measured"):
        run(signals, 0.5)
