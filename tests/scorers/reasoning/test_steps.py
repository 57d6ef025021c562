"""Steps of a text: where they are cut, and that what is left is exactly the text without the others."""

from __future__ import annotations

import re
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.reasoning.steps import removed_spans, split_steps, without

TEXTS = st.text(alphabet="ab \t\r\n\f\u2028é🎉`", max_size=40)
LINES = [
    *("a b", "So:", "**Then:**", "  in", "", "", " ", "- x", "2. y", "   z", "def f():", "    return x"),
    *("```", "```py", "````", "~~~", "  ```", "```a`", "| a | b |", "|---|---|", "a | b", "--- | ---"),
    *("\\[", "\\]", "is \\[", "\\[ x \\]", "\\begin{align}", "\\end{align}", "\\\\[2pt]", "$$", "a $$"),
]
TRACES = st.builds(
    lambda lines, end: end.join(lines),
    st.lists(st.sampled_from(LINES), max_size=25),
    st.sampled_from(["\n", "\r\n"]),
)


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


@given(TEXTS | TRACES)
def test_every_visible_character_is_in_exactly_one_step(text: str) -> None:
    steps = split_steps(text)
    assert all(start < end for start, end in steps)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(steps))
    assert re.sub(r"\s", "", "".join(shown(text))) == re.sub(r"\s", "", text)
    assert all(step == step.rstrip("\r\n") and step.split("\n")[0].strip() for step in shown(text))


@given(TEXTS | TRACES)
def test_a_step_is_cut_no_further(text: str) -> None:
    for step in shown(text):
        assert split_steps(step) == [(0, len(step))]


@given(TRACES)
def test_steps_begin_and_end_where_paragraphs_do(text: str) -> None:
    paragraphs = paragraphs_of(text)
    assert {start for start, _ in split_steps(text)} <= {start for start, _ in paragraphs}
    assert {end for _, end in split_steps(text)} <= {end for _, end in paragraphs}


def paragraphs_of(text: str) -> list[tuple[int, int]]:
    """What blank lines alone would make of it."""
    return [match.span() for match in re.finditer(r"(?:[^\n]*\S[^\n]*(?:\n(?=[^\n]*\S))?)+(?<!\r)", text)]


@given(TEXTS | TRACES, st.randoms(use_true_random=False))
def test_what_is_left_has_the_kept_steps_verbatim_in_order_and_no_others(text: str, random: object) -> None:
    steps = split_steps(text)
    keep = [random.random() < 0.5 for _ in steps]  # type: ignore[attr-defined]
    spans = removed_spans(steps, keep)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(end < begin for (_, end), (begin, _) in pairwise(spans))
    left = without(text, spans)
    assert len(left) == len(text) - sum(end - start for start, end in spans)
    at = 0
    for (start, end), kept in zip(steps, keep, strict=True):
        if kept:
            found = left.index(text[start:end], at)
            assert not left[at:found].strip()
            at = found + end - start
    assert not left[at:].strip()


CODE = "def f():\n\n    return 1"


@pytest.mark.parametrize(
    "step",
    [
        f"```python\n{CODE}\n```",
        f"~~~\n{CODE}\n~~~",
        f"   ```\n{CODE}\n   ```",
        f"````md\n```py\n{CODE}\n```\n\nmore\n````",
        f"```\n~~~\n{CODE}\n```",
        f"The code would be:\n\n```py\n{CODE}\n```",
        f"The code would be:\n\n{CODE}",
        f"import re\n\n{CODE}",
        "1. Do this:\n\n   it is done\n\n   $$x$$",
        "Three cases:\n\n- one\n\n- two\n  goes on\n\n  and on\n\n- three",
        "Cases:\n- one\n\n- two",
        "**Steps:**\n\n1. one\n2. two",
        "We get\n\\[\nx\n\n= 1\n\\]\nand so on",
        "\\[\nx\n\n= 1 \\\\[2pt]\n\n\\]",
        "Then:\n\n$$\nx\n\n= 1\n$$",
        "\\begin{align}\n\\begin{cases}\n1\n\n2\n\\end{cases}\n\n\\end{align}",
        "As a table:\n\n| a | b |\n|---|---|\n| 1 | 2 |",
        "As a table:\n\na | b\n--- | ---\n1 | 2",
        "| a | b |\n|---|---|\n\n| 1 | 2 |",
    ],
)
def test_what_belongs_together_is_one_step(step: str) -> None:
    for text in (step, step.replace("\n", "\r\n")):
        parted = "\r\n\r\n" if "\r" in text else "\n\n"
        assert shown(f"Before.{parted}{text}{parted}Behind.") == ["Before.", text, "Behind."]


@pytest.mark.parametrize(
    "text",
    [
        "```py\nx = 1\n\nand\n\nso on",  # never closed
        "````\nx\n\n```\n\ny",  # closed by too few
        "~~~\nx\n\n```\n\ny",  # closed by another mark
        "```\nx\n\n``` no\n\ny",  # closed by an opening one
        "``` a`b\n\n```",  # no fence: a mark of code behind it
        "So \\[ x\n\n\\] y \\[\n\nz",
        "\\[ x\n\n\\[ y\n\nz",
        "$$ x\n\ny",
        "\\begin{align} x\n\n\\end{array} y",
        "Note:\n\nThis is prose.",
        "- one\n\n- two",
        "x = 1\n\ny = 2",
        "a\n\n| b |",
    ],
)
def test_nothing_else_goes_on_behind_a_blank_line(text: str) -> None:
    assert shown(text) == text.split("\n\n")


@pytest.mark.parametrize(
    "unit",
    [
        *("```py\nx\n\n", "````\n```\n\n", "~~~\n", "\\[\n\n", "a $$ b\n\n", "$$\n\n", "\\begin{a}\n\n"),
        *("So:\n\n- x\n\n", "`", " ", "| a\n", "x"),
    ],
)
def test_work_grows_as_the_text_does(unit: str) -> None:
    def calls(size: int) -> int:
        text = unit * (size // len(unit))
        seen = 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal seen
            seen += 1

        sys.setprofile(count)
        try:
            split_steps(text)
        finally:
            sys.setprofile(None)
        return seen

    assert calls(4000) < 2.2 * calls(2000) + 200


def test_a_removed_step_takes_the_gap_behind_it_and_the_last_ones_the_gap_before_them() -> None:
    text = "a\n\nb\n\n\nc\n\nd"
    steps = split_steps(text)
    assert without(text, removed_spans(steps, [True, False, True, True])) == "a\n\nc\n\nd"
    assert without(text, removed_spans(steps, [False, False, True, True])) == "c\n\nd"
    assert without(text, removed_spans(steps, [True, True, False, False])) == "a\n\nb"
    assert without(text, removed_spans(steps, [False] * 4)) == ""
    assert removed_spans(steps, [True] * 4) == []
