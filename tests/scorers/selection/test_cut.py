"""Cuts of values that are read in parts, against those of all of them sorted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorers.selection import cut
from scorers.selection.cut import first_in_turn, nth_highest

NUMBERS = st.lists(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 5e-324]) | st.floats(allow_nan=False), min_size=1
)


@settings(max_examples=60)
@given(NUMBERS, st.data())
def test_the_cut_is_the_value_of_that_rank_however_the_values_come(
    numbers: list[float], data: st.DataObject
) -> None:
    values = np.array(numbers)
    rank, step, few = (data.draw(st.integers(1, most)) for most in (len(values), len(values), 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cut, "_FEW", few)
        found = nth_highest(
            lambda: (values[at : at + step] for at in range(0, len(values), step)), len(values), rank
        )
    assert found == sorted(numbers, reverse=True)[rank - 1]


def test_no_more_than_a_few_values_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut, "_FEW", 100)
    held: list[int] = []
    monkeypatch.setattr(
        np,
        "partition",
        lambda some, at, partition=np.partition: held.append(len(some)) or partition(some, at),
    )
    values = np.random.default_rng(0).normal(size=20_000)
    found = nth_highest(lambda: iter(np.array_split(values, 50)), len(values), 7_000)
    assert found == np.sort(values)[-7_000]
    assert held[0] <= 100


@settings(max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.data())
def test_what_is_given_out_goes_to_whoever_comes_first(each: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(each))))
    count = data.draw(st.integers(0, sum(each)))
    whole, last, left = first_in_turn(np.array(each), np.array(order), count)
    given_out = [owner for owner in order for _ in range(each[owner])][:count]
    expected = np.bincount(given_out, minlength=len(each)) if given_out else np.zeros(len(each), int)
    got = np.where(whole, each, 0)
    got[last] += left
    assert got.tolist() == expected.tolist()
    assert 0 <= left < max(each, default=0) + 1
