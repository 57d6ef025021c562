"""Which tokens a step has under tokenizers of many habits, and what it scores, the slow obvious way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.reasoning.asap import StepTokens, first_token, later_tokens, locate
from scorers.reasoning.steps import split_steps
from scorers.signals.columns import Ints


def tokens(pieces: list[str]) -> tuple[Ints, Ints]:
    """Start and end of pieces that stand one after another."""
    ends = np.cumsum([len(piece) for piece in pieces])
    return np.concatenate([[0], ends[:-1]]).astype(np.int64), ends.astype(np.int64)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        # a gap of its own tokens; a gap in one token; a gap inside the step's last token
        (["Let", " x", "\n", "\n", "So", " y"], StepTokens(*map(np.array, ([0, 4], [2, 6])))),
        (["Let", " x", "\n\n", "So", " y"], StepTokens(*map(np.array, ([0, 3], [2, 5])))),
        (["Let", " x\n\n", "So", " y"], StepTokens(*map(np.array, ([0, 2], [2, 4])))),
        # a token that holds the gap and the next step's beginning opens that step, though it begins in the
        # gap
        (["Let", " x", "\n\nSo", " y"], StepTokens(*map(np.array, ([0, 2], [2, 4])))),
        # one that holds the end of a step, the gap and the beginning of the next opens both
        (["Let x\n\nSo", " y"], StepTokens(*map(np.array, ([0, 0], [1, 2])))),
    ],
)
def test_the_tokens_of_a_step_follow_the_offsets(pieces: list[str], expected: StepTokens) -> None:
    text = "Let x\n\nSo y"
    assert "".join(pieces) == text
    found = locate(text, split_steps(text), *tokens(pieces))
    for name in ("first", "stop"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def test_a_step_that_is_indented_is_opened_by_its_first_visible_token() -> None:
    text = "a\n\n    b"
    found = locate(text, split_steps(text), *tokens(["a", "\n\n", "   ", " b"]))
    assert found.first.tolist() == [0, 3]
    assert found.stop.tolist() == [1, 4]


def test_tokens_before_and_behind_the_reasoning_are_no_steps() -> None:
    text = "a\n\nb"
    start = np.array([-8, -1, 0, 1, 3, 4, 12])
    end = np.array([-1, 0, 1, 3, 4, 12, 12])
    found = locate(text, split_steps(text), start, end)
    assert found.first.tolist() == [2, 4]
    assert found.stop.tolist() == [3, 5]


def test_a_token_that_begins_before_the_reasoning_opens_its_first_step() -> None:
    text = "one\n\ntwo"
    found = locate(text, split_steps(text), np.array([-3, -1, 3, 5]), np.array([-1, 3, 5, 8]))
    assert found.first.tolist() == [1, 3]
    assert found.stop.tolist() == [2, 4]


def test_a_character_that_several_tokens_spell_is_opened_by_the_first_of_them() -> None:
    text = "x\n\n🎉y"
    found = locate(text, split_steps(text), np.array([0, 1, 3, 3, 3, 4]), np.array([1, 3, 4, 4, 4, 5]))
    assert found.first.tolist() == [0, 2]
    assert found.stop.tolist() == [1, 6]


def test_a_step_past_the_last_token_has_no_first_one() -> None:
    text = "aa\n\nbb\n\ncc"
    found = locate(text, split_steps(text), *tokens(["aa", "\n\n", "b"]))
    assert found.first.tolist() == [0, 2, -1]


PIECES = st.lists(
    st.sampled_from(["a", " b", "\n", "\n\n", ".\n\n", "\n\nc", " ", "é", ".\n\nd"]), min_size=1, max_size=20
)


@given(PIECES, st.integers(0, 9))
def test_a_step_is_scored_by_its_first_token_or_by_the_mean_of_those_that_begin_in_it_later(
    pieces: list[str], seed: int
) -> None:
    text = "".join(pieces)
    steps = split_steps(text)
    if not steps:
        return
    start, end = tokens(pieces)
    nll = np.random.default_rng(seed).random(len(pieces)).astype(np.float32)
    found = locate(text, steps, start, end)
    first, later = first_token(found, nll), later_tokens(found, nll)
    for number, (begin, stop) in enumerate(steps):
        visible = next(at for at in range(begin, stop) if text[at].strip())
        opens = next(at for at in range(len(pieces)) if start[at] <= visible < end[at])
        others = [nll[at] for at in range(opens + 1, len(pieces)) if start[at] < stop]
        assert first[number] == nll[opens]
        assert later[number] == pytest.approx(-np.mean(others or [nll[opens]]), rel=1e-6)


def test_the_least_natural_steps_score_lowest_by_their_later_tokens() -> None:
    text = "a b c\n\nd e f"
    found = locate(text, split_steps(text), *tokens(["a", " b", " c", "\n\n", "d", " e", " f"]))
    nll = np.array([9.0, 1, 2, 5, 0.1, 3, 4])
    assert later_tokens(found, nll).tolist() == [-1.5, -3.5]
    assert first_token(found, nll).tolist() == [9.0, 0.1]
