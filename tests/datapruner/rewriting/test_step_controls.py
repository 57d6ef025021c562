"""Random and longest steps: what goes, to which budget, and that a row's outcome is its own."""

from __future__ import annotations

from datapruner.rewriting.step_controls import (
    LongestSteps,
    LongestStepsOptions,
    RandomSteps,
    RandomStepsOptions,
)
from tests.datapruner.rewriting.lessons import lesson

STEPS = [f"step {number} of many" for number in range(20)]
TEXT = "\n\n".join(STEPS)


def count(text: str) -> int:
    return len(text.split())


def drawn(number: int = 0, **options: int) -> list[int]:
    rewriter = RandomSteps(RandomStepsOptions(max_token_ratio=0.5, **options), count)
    found = rewriter.rewrite(lesson(number, reasoning=TEXT))
    assert (found.status, found.tokens_after, found.budget) == ("rewritten", 40, 40)
    assert all(step.surprisal is None for step in found.steps)
    return [place for place, step in enumerate(found.steps) if step.kept]


def test_random_steps_depend_on_the_seed_and_the_row_alone() -> None:
    assert drawn() == drawn()
    assert len({tuple(drawn(number)) for number in range(3)} | {tuple(drawn(seed=1))}) == 4


def test_every_step_is_as_likely_to_stay() -> None:
    seen = [place for seed in range(200) for place in drawn(seed=seed)]
    assert all(70 < seen.count(place) < 130 for place in range(20))


def test_the_longest_steps_go_until_the_budget_is_met() -> None:
    text = "a b c\n\na\n\na b c d\n\na b\n\na b c e"
    rewriter = LongestSteps(LongestStepsOptions(max_tokens=6), count)
    found = rewriter.rewrite(lesson(reasoning=text))
    assert found.text == lesson().response("a b c\n\na\n\na b")
    assert (found.reason, found.tokens_after) == ("longest steps removed", 6)
