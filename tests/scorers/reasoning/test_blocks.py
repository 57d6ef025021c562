"""Blocks of several lines, what announces one, and marks without a counterpart."""

from __future__ import annotations

import pytest

from scorers.reasoning.blocks import announces, block_ends, broken_blocks


@pytest.mark.parametrize("text", ["So:", "So: ", "**So:**", "So:\r\n", "所以：", "def f():"])
def test_a_colon_at_the_end_announces(text: str) -> None:
    assert announces(text)


@pytest.mark.parametrize("text", ["", "So", "a: b", "Is it 3:4?", ":)"])
def test_any_other_end_does_not(text: str) -> None:
    assert not announces(text)


def test_blocks_do_not_overlap() -> None:
    text = "```\n\\[\n```\n\\]\n\\[\n```\n\\]\n```"
    assert block_ends(text.split("\n")) == {0: 2, 4: 6}


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("```\nx\n```\n\\[ x \\]\n$$ y $$\n\\begin{a}\n\\end{a}", 0),
        ("```\nx = '$$' + '\\['\n```", 0),
        ("```py\nx", 1),
        ("x\n```\n\n````\ny\n````", 1),
        ("\\[ x", 1),
        ("x \\]", 1),
        ("x \\\\[2pt]", 0),
        ("$$ x", 1),
        ("\\begin{a} \\end{b}", 2),
    ],
)
def test_marks_without_a_counterpart_are_counted(text: str, broken: int) -> None:
    assert broken_blocks(text) == broken
