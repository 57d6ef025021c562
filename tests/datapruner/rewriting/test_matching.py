"""Matching a shortened trace with its original."""

from __future__ import annotations

import time
from difflib import SequenceMatcher
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.rewriting.matching import EMPTY, FOREIGN, TOO_LONG, UnmatchedError, match_steps
from tests.waiting import PATIENCE

ORIGINALS = [
    "Let x be the number of apples.",
    "So x = 4.",
    "Wait, that is wrong: she ate one more.",
    "So x = 5.",
    "Let me check the sum once more. It is right.",
]
STEPS = st.lists(st.text("abc", min_size=1, max_size=6), min_size=1, max_size=6)


def ratio(original: str, shortened: str) -> float:
    return SequenceMatcher(None, original, shortened, autojunk=False).ratio()


def test_a_step_stands_for_its_equal_not_for_an_earlier_one_like_it() -> None:
    assert ratio(ORIGINALS[1], ORIGINALS[3]) > 0.6
    assert match_steps(["So x = 5."], ORIGINALS, 0.6) == [(3, 1.0)]


def test_a_step_that_was_cut_is_matched_by_similarity() -> None:
    shortened = ["Let x be the number.", "So x = 5.", "Let me check the sum once more."]
    expected = [(0, ratio(ORIGINALS[0], shortened[0])), (3, 1.0), (4, ratio(ORIGINALS[4], shortened[2]))]
    assert match_steps(shortened, ORIGINALS, 0.6) == expected


@pytest.mark.parametrize(
    "shortened",
    [
        ["The answer is clearly five."],
        ["So x = 5.", "Let x be the number of apples."],
        ["So x = 5.", "So x = 5.", "So x = 5."],
        [*ORIGINALS, ORIGINALS[-1]],
    ],
    ids=["new words", "another order", "repeated", "longer"],
)
def test_steps_that_are_not_the_originals_in_order_are_refused(shortened: list[str]) -> None:
    with pytest.raises(UnmatchedError, match=FOREIGN):
        match_steps(shortened, ORIGINALS, 0.6)


def test_nothing_does_not_match() -> None:
    with pytest.raises(UnmatchedError, match=EMPTY):
        match_steps([], ORIGINALS, 0.6)


def test_equal_steps_give_way_where_they_do_not_fit() -> None:
    # "So x = 4." has its equal at 2, behind the only place left for the step after it.
    assert match_steps(["So x = 4.", "Then stop."], ["So x = 5.", "Then stop.", "So x = 4."], 0.6) == [
        (0, ratio("So x = 5.", "So x = 4.")),
        (1, 1.0),
    ]


@settings(max_examples=300)
@given(STEPS, STEPS, st.sampled_from([0.3, 0.6, 0.9]))
def test_a_match_is_found_exactly_where_there_is_one(
    shortened: list[str], originals: list[str], least: float
) -> None:
    def possible(indices: tuple[int, ...]) -> bool:
        return all(ratio(originals[at], step) >= least for at, step in zip(indices, shortened, strict=True))

    every = [indices for indices in combinations(range(len(originals)), len(shortened)) if possible(indices)]
    if not every:
        with pytest.raises(UnmatchedError):
            match_steps(shortened, originals, least)
        return
    found = match_steps(shortened, originals, least)
    assert tuple(at for at, _ in found) in every
    assert [value for _, value in found] == [
        ratio(originals[at], step) for (at, _), step in zip(found, shortened, strict=True)
    ]
    if not set(shortened) & set(originals):
        best = max(sum(map(ratio, (originals[at] for at in indices), shortened)) for indices in every)
        assert sum(value for _, value in found) == pytest.approx(best)


def test_a_cut_at_the_start_of_a_long_step_is_recognised_unless_asked_for_the_published_way() -> None:
    sentences = ["so the sum of the terms is the same", "as the one of the first or the third set"] * 12
    long, cut = " ".join(["then", *sentences]), " ".join(sentences[1:])
    assert match_steps([cut + " so"], [long], 0.6)[0][1] > 0.9
    with pytest.raises(UnmatchedError, match=FOREIGN):
        match_steps([cut + " so"], [long], 0.6, autojunk=True)


@pytest.mark.slow
def test_steps_that_run_in_circles_are_given_up_quickly() -> None:
    circle = "Wait, let me think again. " * 5000
    started = time.perf_counter()
    with pytest.raises(UnmatchedError, match=TOO_LONG):
        match_steps(["x" + circle[:90_000]], [circle], 0.6)
    many = [f"Wait, let me think about {number} again, and again. " * 4 for number in range(500)]
    with pytest.raises(UnmatchedError):
        match_steps([step.replace("think", "ponder") for step in many[::-2]], many, 0.6)
    assert time.perf_counter() - started < PATIENCE


def test_a_long_step_that_was_only_cut_at_its_end_is_no_work() -> None:
    circle = "Wait, let me think again. " * 5000
    assert match_steps([circle[:100_000]], [circle], 0.6)[0][1] == pytest.approx(200 / 230, abs=1e-3)
