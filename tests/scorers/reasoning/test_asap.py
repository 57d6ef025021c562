"""ASAP's choice of steps against the slow obvious way, and first tokens under tokenizers of many habits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.reasoning.asap import StepTokens, keep_steps, locate, remove_in_order
from scorers.reasoning.steps import removed_spans, split_steps, without
from scorers.signals.columns import Bools, Floats, Ints

STEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.5]), st.integers(0, 6), st.integers(0, 3)),
    min_size=1,
    max_size=12,
)


def tokens(pieces: list[str]) -> tuple[Ints, Ints]:
    """Start and end of pieces that stand one after another."""
    ends = np.cumsum([len(piece) for piece in pieces])
    return np.concatenate([[0], ends[:-1]]).astype(np.int64), ends.astype(np.int64)


def size(kept: list[int], inside: Ints, gap: Ints) -> int:
    """Tokens of the chain that these steps make."""
    return sum(int(inside[i]) for i in kept) + sum(int(gap[i]) for i in kept[:-1])


def slow_keep(surprisal: Floats, inside: Ints, gap: Ints, budget: int) -> Bools:
    """Remove one step after another, counting anew each time."""
    kept = list(range(len(surprisal)))
    while size(kept, inside, gap) > budget and len(kept) > 1:
        kept.remove(min(kept, key=lambda i: (surprisal[i], i)))
    return np.isin(np.arange(len(surprisal)), kept)


@given(STEPS, st.integers(0, 60))
def test_steps_go_as_they_would_one_by_one_with_a_recount_each_time(
    steps: list[tuple[float, int, int]], budget: int
) -> None:
    surprisal, inside, gap = (np.array(column) for column in zip(*steps, strict=True))
    keep = keep_steps(surprisal, inside, gap, budget)
    np.testing.assert_array_equal(keep, slow_keep(surprisal, inside, gap, budget))


def test_the_least_surprising_step_goes_first_and_order_stays() -> None:
    one = np.ones(4, dtype=np.int64)
    none = np.zeros(4, dtype=np.int64)
    surprisal = np.array([0.2, 5.0, 0.1, 3.0])
    assert keep_steps(surprisal, one, none, 3).tolist() == [True, True, False, True]
    assert keep_steps(surprisal, one, none, 2).tolist() == [False, True, False, True]
    assert keep_steps(surprisal, one, none, 4).all()


def test_of_equally_surprising_steps_the_earlier_goes_first() -> None:
    one = np.ones(3, dtype=np.int64)
    assert keep_steps(np.zeros(3), one, one, 2).tolist() == [False, False, True]


def test_the_most_surprising_step_stays_however_long_it_is() -> None:
    keep = keep_steps(np.array([1.0, 2.0]), np.array([1, 100]), np.array([1, 0]), 5)
    assert keep.tolist() == [False, True]


def test_a_step_without_surprisal_is_refused() -> None:
    with pytest.raises(ValueError, match="step 1 has no surprisal"):
        keep_steps(np.array([1.0, np.nan]), np.ones(2, np.int64), np.ones(2, np.int64), 1)


def test_any_other_order_of_removal_keeps_the_budget_as_well() -> None:
    inside, gap = np.array([5, 1, 4]), np.array([1, 1, 0])
    assert remove_in_order(np.array([0, 2, 1]), inside, gap, 6).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        # a gap of its own tokens; a gap in one token; a gap inside the step's last token
        (["Let", " x", "\n", "\n", "So", " y"], StepTokens(*map(np.array, ([0, 4], [2, 2], [2, 0])))),
        (["Let", " x", "\n\n", "So", " y"], StepTokens(*map(np.array, ([0, 3], [2, 2], [1, 0])))),
        (["Let", " x\n\n", "So", " y"], StepTokens(*map(np.array, ([0, 2], [2, 2], [0, 0])))),
        # a token that holds the gap and the next step's beginning opens that step, but begins in the gap
        (["Let", " x", "\n\nSo", " y"], StepTokens(*map(np.array, ([0, 2], [2, 1], [1, 0])))),
        # one that holds the end of a step, the gap and the beginning of the next opens both
        (["Let x\n\nSo", " y"], StepTokens(*map(np.array, ([0, 0], [1, 1], [0, 0])))),
    ],
)
def test_first_tokens_and_counts_follow_the_offsets(pieces: list[str], expected: StepTokens) -> None:
    text = "Let x\n\nSo y"
    assert "".join(pieces) == text
    found = locate(text, split_steps(text), *tokens(pieces))
    for name in ("first", "inside", "gap"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def test_a_step_that_is_indented_is_opened_by_its_first_visible_token() -> None:
    text = "a\n\n    b"
    found = locate(text, split_steps(text), *tokens(["a", "\n\n", "   ", " b"]))
    assert found.first.tolist() == [0, 3]
    assert found.inside.tolist() == [1, 2]


def test_tokens_before_and_behind_the_reasoning_are_no_steps() -> None:
    text = "a\n\nb"
    start = np.array([-8, -1, 0, 1, 3, 4, 12])
    end = np.array([-1, 0, 1, 3, 4, 12, 12])
    found = locate(text, split_steps(text), start, end)
    assert found.first.tolist() == [2, 4]
    assert (found.inside.tolist(), found.gap.tolist()) == ([1, 1], [1, 0])


def test_a_token_that_begins_before_the_reasoning_opens_its_first_step_and_is_not_counted() -> None:
    text = "one\n\ntwo"
    found = locate(text, split_steps(text), np.array([-3, -1, 3, 5]), np.array([-1, 3, 5, 8]))
    assert found.first.tolist() == [1, 3]
    assert (found.inside.tolist(), found.gap.tolist()) == ([0, 1], [1, 0])


def test_a_character_that_several_tokens_spell_is_opened_by_the_first_of_them() -> None:
    text = "x\n\n🎉y"
    found = locate(text, split_steps(text), np.array([0, 1, 3, 3, 3, 4]), np.array([1, 3, 4, 4, 4, 5]))
    assert found.first.tolist() == [0, 2]
    assert found.inside.tolist() == [1, 4]


def test_a_step_past_the_last_token_has_no_first_one() -> None:
    text = "aa\n\nbb\n\ncc"
    found = locate(text, split_steps(text), *tokens(["aa", "\n\n", "b"]))
    assert found.first.tolist() == [0, 2, -1]


@given(st.lists(st.sampled_from(["a", " b", "\n", "\n\n", ".\n\n", "\n\nc", " ", "é"]), max_size=20))
def test_counts_of_any_choice_of_steps_are_the_tokens_that_begin_in_what_is_left(pieces: list[str]) -> None:
    text = "".join(pieces)
    steps = split_steps(text)
    if not steps:
        return
    start, end = tokens(pieces)
    found = locate(text, steps, start, end)
    assert (found.first >= 0).all()
    for number in range(1, 2 ** min(len(steps), 4)):
        keep = np.array([bool(number >> i & 1) for i in range(len(steps))])
        spans = removed_spans(steps, keep.tolist())
        left = [
            s
            for s in start
            if steps[0][0] <= s < steps[-1][1] and not any(begin <= s < stop for begin, stop in spans)
        ]
        if keep.any():
            assert size(np.flatnonzero(keep).tolist(), found.inside, found.gap) == len(left)
        assert len(without(text, spans)) <= len(text)
