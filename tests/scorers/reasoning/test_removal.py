"""The order in which steps go, against the rule applied step by step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.reasoning.removal import removal_order

SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=9)


def order_of(sizes: list[int], budget: int, needs: dict[int, list[int]] | None = None) -> list[list[int]]:
    """With steps that score in their own order."""
    return removal_order(np.arange(len(sizes)), np.array(sizes), budget, needs)


def slow_order(sizes: list[int], budget: int, needs: dict[int, list[int]]) -> list[list[int]]:
    """As `removal_order` is described, looking anew at all groups for each that goes."""
    reach = {step: reached(step, needs) for step in range(len(sizes))}
    groups = sorted({tuple(b for b in reach[a] if a in reach[b]) for a in reach})
    weight = {group: sum(sizes[step] for step in group) for group in groups}
    small = np.median(list(weight.values()))
    gone: list[tuple[int, ...]] = []
    passed: set[tuple[int, ...]] = set()

    def free() -> list[tuple[int, ...]]:
        left = [group for group in groups if group not in gone]
        return [g for g in left if not any(other != g and g[0] in reach[other[0]] for other in left)]

    def left() -> int:
        return sum(weight[group] for group in groups if group not in gone)

    while left() > budget and (candidates := [group for group in free() if group not in passed]):
        group = min(candidates, key=max)
        if left() - weight[group] < budget - small:
            passed.add(group)
        else:
            gone.append(group)
    while candidates := free():
        gone.append(min(candidates, key=lambda group: (weight[group], group)))
    return [list(group) for group in gone]


def reached(step: int, needs: dict[int, list[int]]) -> list[int]:
    found, edge = {step}, [step]
    while edge:
        edge = [other for at in edge for other in needs.get(at, []) if other not in found]
        found |= set(edge)
    return sorted(found)


@given(SIZES, st.integers(0, 40), st.dictionaries(st.integers(0, 8), st.lists(st.integers(0, 8), max_size=2)))
def test_the_order_is_that_of_the_rule_applied_step_by_step(
    sizes: list[int], budget: int, wanted: dict[int, list[int]]
) -> None:
    count = len(sizes)
    needs = {a: [b for b in others if b < count] for a, others in wanted.items() if a < count}
    found = order_of(sizes, budget, needs)
    assert found == slow_order(sizes, budget, needs)
    assert sorted(step for group in found for step in group) == list(range(count))


@given(SIZES, st.integers(0, 40))
def test_a_budget_is_met_within_a_small_step_or_the_smallest_that_is_left(
    sizes: list[int], budget: int
) -> None:
    left = list(range(len(sizes)))
    for [step] in order_of(sizes, budget):
        if sum(sizes[each] for each in left) <= budget:
            break
        before = [sizes[each] for each in left]
        left.remove(step)
        missed = budget - sum(sizes[each] for each in left)
        assert missed <= max(np.median(sizes), min(before))


@pytest.mark.parametrize(
    ("sizes", "budget", "first"),
    [
        ([2, 2, 2, 2], 4, [0, 1]),
        ([90, 2, 2, 2, 2], 94, [1, 2]),  # the large one would leave 8 of 94
        ([90, 2, 2, 2, 2], 10, [0]),
        ([5, 4, 4], 9, [0]),  # one token more than need be: within a small step
        ([90, 80, 1, 1, 1], 150, [2, 3, 4, 1]),  # the small ones do not do: the smallest of what is left
        ([1, 100], 5, [0, 1]),
    ],
)
def test_a_large_step_that_would_overshoot_is_passed_over(
    sizes: list[int], budget: int, first: list[int]
) -> None:
    assert [step for [step] in order_of(sizes, budget)[: len(first)]] == first


def test_a_step_goes_before_the_one_that_it_needs_and_with_one_that_needs_it_too() -> None:
    sizes = [3, 3, 3, 3]
    assert order_of(sizes, 9, {3: [0]}) == [[1], [2], [3], [0]]
    assert order_of(sizes, 3, {3: [0]}) == [[1], [2], [3], [0]]
    assert order_of(sizes, 3, {2: [0], 0: [2]}) == [[1], [0, 2], [3]]
    assert order_of(sizes, 7, {2: [0], 0: [2]}) == [[1], [3], [0, 2]]
