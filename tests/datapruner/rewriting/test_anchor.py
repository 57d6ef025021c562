"""The coarse stage of ASAP, with a scripted teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datapruner.rewriting.acceptance import Rejection
from datapruner.rewriting.anchor import ALL_NEEDED, LONGER, SHORTENED, AnchorOptions
from datapruner.rewriting.matching import EMPTY, FOREIGN
from datapruner.rewriting.outcomes import Rewritten
from datapruner.teacher import TeacherError
from scorers.reasoning.steps import split_steps
from tests.datapruner.client.unruly import Unruly
from tests.datapruner.rewriting.lessons import THINKING, lesson, one, run, sent
from tests.datapruner.teacher.scripted import fails, says

STEPS = THINKING.split("\n\n")
DIRECT = says("<thought>3 * 4 is 12, plus 2 is 14.</thought>")


def shortened(*steps: str) -> Any:
    return says("<compressed>\n" + "\n\n".join(steps) + "\n</compressed>")


def rewrite(script: Unruly, tmp_path: Path, **options: Any) -> Rewritten:
    return one(AnchorOptions(**options).rewriter(), lesson(), script, tmp_path)


def test_steps_that_the_teacher_leaves_out_are_removed(script: Unruly, tmp_path: Path) -> None:
    script.will(DIRECT, shortened(STEPS[0], STEPS[2], STEPS[4]))
    found = rewrite(script, tmp_path)
    assert (found.status, found.reason) == ("rewritten", SHORTENED)
    kept = "\n\n".join([STEPS[0], STEPS[2], STEPS[4]])
    assert found.text == f"<think>\n{kept}\n</think>\nThe result is \\boxed{{14}}."
    assert [step.kept for step in found.steps] == [True, False, True, False, True]
    assert [(step.start, step.end) for step in found.steps] == split_steps(THINKING)
    removed = [THINKING[start:end] for start, end in found.removed]
    assert removed == [STEPS[1] + "\n\n", STEPS[3] + "\n\n"]


def test_the_teacher_thinks_without_the_trace_and_shortens_with_its_thought(
    script: Unruly, tmp_path: Path
) -> None:
    script.will(DIRECT, shortened(*STEPS[:3]))
    rewrite(script, tmp_path)
    direct, compress = sent(script)
    assert (direct["temperature"], compress["temperature"]) == (0.0, 1.0)
    assert STEPS[0] not in str(direct["messages"])
    assert "What is 3 * 4 + 2?" in direct["messages"][1]["content"]
    assert "\\boxed{14}" in direct["messages"][1]["content"]
    for part in (THINKING, "3 * 4 is 12, plus 2 is 14.", "What is 3 * 4 + 2?"):
        assert part in compress["messages"][1]["content"]


def test_words_of_the_teacher_stay_unless_the_originals_are_asked_for(script: Unruly, tmp_path: Path) -> None:
    cut = STEPS[4].removesuffix(" that the answer is 14.") + "."
    script.will(DIRECT, shortened(STEPS[2], cut))
    found = rewrite(script, tmp_path)
    assert f"<think>\n{STEPS[2]}\n\n{cut}\n</think>" in str(found.text)
    assert found.removed == ()
    assert found.steps[4].why.startswith("kept in the teacher's words (similarity 0.")
    script.will(DIRECT, shortened(STEPS[2], cut))
    verbatim = one(AnchorOptions(verbatim=True).rewriter(), lesson(1), script, tmp_path)
    assert f"<think>\n{STEPS[2]}\n\n{STEPS[4]}\n</think>" in str(verbatim.text)
    assert "".join(THINKING[start:end] for start, end in verbatim.removed) == THINKING.replace(
        f"{STEPS[2]}\n\n", ""
    ).replace(STEPS[4], "")


def test_what_does_not_match_is_asked_for_again(script: Unruly, tmp_path: Path) -> None:
    script.will(DIRECT, shortened("Twelve and two make fourteen, obviously!"), shortened(STEPS[2]))
    found = rewrite(script, tmp_path)
    assert found.status == "rewritten"
    assert len(script.seen) == 3
    assert sent(script)[1] == sent(script)[2], "another try is the same question, asked anew"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (shortened(*reversed(STEPS)), FOREIGN),
        (shortened("Twelve and two make fourteen, obviously!"), FOREIGN),
        (shortened(), EMPTY),
        (shortened(*STEPS[:4], STEPS[4] + " The answer is 14!"), LONGER),
        (shortened(STEPS[2], STEPS[4] + "</think>"), None),
        (shortened(STEPS[2], STEPS[4] + "<think>"), Rejection.MARKUP.value),
        (says("I would rather not."), Rejection.UNREADABLE.value),
        (says(""), Rejection.UNREADABLE.value),
        (says("<compressed>\n" + STEPS[2], finish="length"), Rejection.CUT.value),
    ],
    ids=["order", "paraphrase", "empty", "longer", "closing", "opening", "refusal", "silence", "cut"],
)
def test_after_five_tries_the_trace_stays_as_it_was_with_the_reason(
    script: Unruly, tmp_path: Path, answer: Any, why: str | None
) -> None:
    script.will(DIRECT, answer)
    found = rewrite(script, tmp_path)
    assert found.status == "original"
    assert found.reason == f"not shortened: {why or Rejection.UNREADABLE.value}"
    assert found.text == lesson().response(THINKING)
    assert found.removed == ()
    assert all(step.kept for step in found.steps)
    assert len(script.seen) == 6


def test_without_a_direct_thought_nothing_is_shortened(script: Unruly, tmp_path: Path) -> None:
    script.will(says("no tags"))
    found = rewrite(script, tmp_path, tries=3)
    assert found.reason == f"not shortened: {Rejection.UNREADABLE.value}"
    assert len(script.seen) == 3


def test_a_teacher_that_needs_everything_leaves_the_row_as_it_was(script: Unruly, tmp_path: Path) -> None:
    script.will(DIRECT, shortened(*STEPS))
    found = rewrite(script, tmp_path)
    assert (found.status, found.reason, found.removed) == ("original", ALL_NEEDED, ())


def test_a_second_run_asks_nothing(script: Unruly, tmp_path: Path) -> None:
    script.will(DIRECT, shortened("Something else entirely, not from here."), shortened(STEPS[2]))
    first = rewrite(script, tmp_path)
    script.will(fails(400))
    assert rewrite(script, tmp_path) == first
    assert script.seen == []


def test_a_teacher_that_fails_is_the_rows_error(script: Unruly, tmp_path: Path) -> None:
    script.will(fails(400))
    (found,) = run(AnchorOptions().rewriter(), [lesson()], script, tmp_path / "answers.sqlite")
    assert isinstance(found, TeacherError)
