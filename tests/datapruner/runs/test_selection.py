"""How much a method keeps when it is asked for a share, a count or a budget of tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.errors import UsageError
from datapruner.request.config import MethodChoice, find
from datapruner.request.keep import Keep
from datapruner.request.needs import needs
from datapruner.runs.selection import kept_tokens, score
from scorers.method import Selection
from scorers.methods.registry import OWN
from scorers.signals.columns import Signals
from tests.signal_factory import make_signals

METHODS = [method.name for method in OWN]
OF_ALL = [name for name in METHODS if name != "grape"]  # which takes one sample of each prompt
RANKED = [name for name in OF_ALL if name not in ("qtuning", "cot-influx")]  # whose share is of the tokens


def selected(signals: Signals, name: str, keep: Keep, seed: int = 0) -> Selection:
    selection = score(signals, [MethodChoice(name=name)], keep, seed).selection
    assert selection is not None
    return selection


def used(signals: Signals, selection: Selection) -> int:
    """Trained tokens of a selection, counted one by one."""
    return sum(
        bool(selection.keep[i]) and bool(selection.token_keep[t])
        for i in range(len(signals))
        for t in range(signals.offsets[i], signals.offsets[i + 1])
    )


@pytest.mark.parametrize("name", RANKED)
@pytest.mark.parametrize("count", [1, 2, 29, 30])
def test_a_count_is_kept_exactly(name: str, count: int) -> None:
    assert selected(make_signals(30), name, Keep(count=count)).keep.sum() == count


@pytest.mark.parametrize("name", RANKED)
@pytest.mark.parametrize(("share", "count"), [(1e-6, 1), (0.1, 3), (0.101, 4), (0.5, 15), (1.0, 30)])
def test_a_share_is_rounded_up(name: str, share: float, count: int) -> None:
    assert selected(make_signals(30), name, Keep(share=share)).keep.sum() == count


@pytest.mark.parametrize("count", [1, 5, 12, 30])
def test_qtuning_keeps_at_least_a_count_and_exactly_that_when_asked(count: int) -> None:
    signals = make_signals(30)
    assert selected(signals, "qtuning", Keep(count=count)).keep.sum() >= count
    exact = MethodChoice(name="qtuning", options={"exact": True})
    selection = score(signals, [exact], Keep(count=count), 0).selection
    assert selection is not None
    assert selection.keep.sum() == count


@pytest.mark.parametrize("name", METHODS)
def test_more_samples_than_there_are_cannot_be_kept(name: str) -> None:
    with pytest.raises(UsageError, match="asked to keep 31 samples, but only 30 were measured"):
        selected(make_signals(30), name, Keep(count=31))


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(0, 5), st.integers(1, 400), st.sampled_from(METHODS))
def test_a_token_budget_is_never_exceeded(n: int, seed: int, budget: int, name: str) -> None:
    signals = make_signals(n, seed)
    try:
        selection = selected(signals, name, Keep(tokens=budget))
    except UsageError:
        assert used(signals, selected(signals, name, Keep(count=1))) > budget
        return
    assert 0 < used(signals, selection) <= budget


@pytest.mark.parametrize("name", RANKED)
@pytest.mark.parametrize("budget", [40, 77, 150, 300])
def test_a_token_budget_has_no_room_for_one_more_sample(name: str, budget: int) -> None:
    signals = make_signals(60)
    selection = selected(signals, name, Keep(tokens=budget))
    more = selected(signals, name, Keep(count=int(selection.keep.sum()) + 1))
    assert (more.keep & selection.keep).sum() == selection.keep.sum()
    assert used(signals, selection) <= budget < used(signals, more)


@pytest.mark.parametrize("name", OF_ALL)
def test_a_token_budget_that_holds_everything_keeps_everything(name: str) -> None:
    signals = make_signals(20)
    assert selected(signals, name, Keep(tokens=int(signals.offsets[-1]))).keep.all()


@pytest.mark.parametrize("name", ["length", "donod"])
def test_a_token_budget_too_small_for_the_first_sample_is_an_error(name: str) -> None:
    signals = make_signals(20, max_response=12)
    first = used(signals, selected(signals, name, Keep(count=1)))
    with pytest.raises(
        UsageError, match=f"a budget of {first - 1} tokens does not hold .* {name} puts first"
    ):
        selected(signals, name, Keep(tokens=first - 1))


def test_kept_tokens_are_counted_per_sample_and_zero_for_pruned_ones() -> None:
    signals = make_signals(25)
    selection = selected(signals, "qtuning", Keep(share=0.4))
    found = kept_tokens(signals, selection)
    for i in range(25):
        own = selection.token_keep[signals.offsets[i] : signals.offsets[i + 1]]
        assert found[i] == (sum(own) if selection.keep[i] else 0)
    assert found.sum() == used(signals, selection)


def test_several_methods_are_scored_side_by_side_without_selecting() -> None:
    signals = make_signals(12)
    scored = score(signals, [MethodChoice(name=name) for name in METHODS], None, 5)
    assert scored.selection is None
    assert {"ppl", "entropy", "don", "nod", "donod", "el2n", "length", "random"} <= set(scored.samples)
    assert all(len(column) == 12 for column in scored.samples.values())
    tokens, last = scored.tokens(slice(0, 12)), scored.tokens(slice(9, 12))
    assert {"qtuning", "rho"} <= set(tokens)
    for name, column in tokens.items():
        assert len(column) == signals.offsets[-1]
        assert np.array_equal(last[name], column[signals.offsets[9] :])


def test_a_selection_adds_its_own_columns_to_the_scores() -> None:
    scored = score(make_signals(12), [MethodChoice(name="qtuning")], Keep(share=0.5), 0)
    assert {"quadrant", "nominal_quadrant"} <= set(scored.samples)
    assert set(np.unique(scored.samples["quadrant"])) <= {"Q1", "Q2", "Q3", "Q4", "band"}


def test_the_needs_of_several_methods_are_joined_and_follow_their_options() -> None:
    def asked(**options: object) -> frozenset[str]:
        return needs([MethodChoice(name="donod", options=options), MethodChoice(name="length")])

    assert asked() == {"head_grad_norm", "head_grad_dot", "head_norm", "n_response_tokens"}
    assert asked(tied_exact=True) == {"tied_grad_norm", "tied_grad_dot", "head_norm", "n_response_tokens"}
    everything = needs([MethodChoice(name=name) for name in METHODS])
    assert everything == frozenset().union(*(find(name).needs(find(name).options()) for name in METHODS))
