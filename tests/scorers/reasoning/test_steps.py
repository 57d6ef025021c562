"""Steps of a text: where they are cut, and that what is left is exactly the text without the others."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.reasoning.steps import removed_spans, split_steps, without

TEXTS = st.text(alphabet="ab \t\r\n\f\u2028é🎉`", max_size=40)


def shown(text: str) -> list[str]:
    return [text[start:end] for start, end in split_steps(text)]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", []),
        (" \n\n\t", []),
        ("one", ["one"]),
        ("one\ntwo", ["one\ntwo"]),
        ("one\n\ntwo", ["one", "two"]),
        ("one\n \t\n\n\ntwo\n", ["one", "two"]),
        ("one\r\n\r\ntwo\r\n", ["one", "two"]),
        ("\n\n  indented\n\n\n", ["  indented"]),
        ("one\ftwo\u2028three", ["one\ftwo\u2028three"]),
    ],
)
def test_steps_are_cut_at_blank_lines_alone(text: str, steps: list[str]) -> None:
    assert shown(text) == steps


@given(TEXTS)
def test_every_visible_character_is_in_exactly_one_step_and_steps_hold_no_blank_line(text: str) -> None:
    steps = split_steps(text)
    assert steps == sorted(steps)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(steps))
    assert re.sub(r"\s", "", "".join(shown(text))) == re.sub(r"\s", "", text)
    assert all(line.strip() for step in shown(text) for line in step.split("\n"))


@given(TEXTS, st.randoms(use_true_random=False))
def test_what_is_left_has_the_kept_steps_verbatim_in_order_and_no_others(text: str, random: object) -> None:
    steps = split_steps(text)
    keep = [random.random() < 0.5 for _ in steps]  # type: ignore[attr-defined]
    spans = removed_spans(steps, keep)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(end < begin for (_, end), (begin, _) in pairwise(spans))
    left = without(text, spans)
    assert shown(left) == [text[start:end] for (start, end), kept in zip(steps, keep, strict=True) if kept]
    assert len(left) == len(text) - sum(end - start for start, end in spans)


def test_a_removed_step_takes_the_gap_behind_it_and_the_last_ones_the_gap_before_them() -> None:
    text = "a\n\nb\n\n\nc\n\nd"
    steps = split_steps(text)
    assert without(text, removed_spans(steps, [True, False, True, True])) == "a\n\nc\n\nd"
    assert without(text, removed_spans(steps, [False, False, True, True])) == "c\n\nd"
    assert without(text, removed_spans(steps, [True, True, False, False])) == "a\n\nb"
    assert without(text, removed_spans(steps, [False] * 4)) == ""
    assert removed_spans(steps, [True] * 4) == []
