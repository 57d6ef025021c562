"""What is wrong with rewritten reasoning: cut by whole steps, or in new words."""

from __future__ import annotations

from datapruner.rewriting.checks import checked
from datapruner.rewriting.outcomes import Flaws, Rewritten, Step
from scorers.reasoning.steps import removed_spans, split_steps, without
from tests.datapruner.rewriting.lessons import lesson

STEPS = ["Step 1: add.", "So:", "b", "As in step 1, c.", "```\nd"]
ROW = lesson(reasoning="\n\n".join(STEPS))


def cut(*kept: int) -> Rewritten:
    spans = split_steps(ROW.reasoning)
    keep = [number in kept for number in range(len(spans))]
    removed = removed_spans(spans, keep)
    steps = tuple(Step(*span, None, stays, "drawn") for span, stays in zip(spans, keep, strict=True))
    text = ROW.response(without(ROW.reasoning, removed))
    return Rewritten("rewritten", text, "cut", removed=tuple(removed), steps=steps)


def test_what_hangs_is_counted_and_said_of_its_step() -> None:
    found = checked(ROW, cut(1, 3))
    assert found.flaws == Flaws(references=1, colons=1, blocks=0)
    assert [step.why for step in found.steps] == [
        "drawn",
        "drawn; step 3, which it announces, is gone",
        "drawn",
        "drawn; step 1, to which it refers, is gone",
        "drawn",
    ]
    assert checked(ROW, cut(0, 1, 2)).flaws == Flaws(0, 0, 0)


def test_what_was_broken_before_is_not_counted() -> None:
    assert checked(ROW, cut(0, 4)).flaws == Flaws(0, 0, 0)


def test_new_words_are_checked_for_what_the_reasoning_had() -> None:
    whole = lesson(reasoning="\n\n".join(STEPS[:-1]))
    outcome = Rewritten("rewritten", whole.response("By step 1 and step 7, we get $$ x:"), "in new words")
    assert checked(whole, outcome).flaws == Flaws(references=1, colons=1, blocks=1)
    again = Rewritten("rewritten", ROW.response("Step 1: a.\n\nBy step 1, b."), "in new words")
    assert checked(ROW, again).flaws == Flaws(0, 0, 0)


def test_a_row_that_was_not_rewritten_has_no_flaws_to_tell() -> None:
    assert checked(ROW, Rewritten("original", "x", "kept")).flaws is None
    assert checked(ROW, Rewritten("error", None, "lost")).flaws is None
