"""ASAP over a row: the fewest removals that fit, against a recount after each; budgets; rows not measured."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapruner.rewriting.asap import TOO_LONG, Asap, AsapOptions
from datapruner.rewriting.outcomes import Rewritten
from datapruner.rewriting.reasoning import ReasoningRow
from datapruner.rewriting.rewriters import MeasuredReasoning
from scorers.reasoning.coherence import hanging
from scorers.reasoning.removal import removal_order
from scorers.reasoning.steps import split_steps
from tests.datapruner.rewriting.lessons import lesson

TEXTS = st.lists(st.sampled_from(["a", "b c", "\n\n", "\n\n\n", "\n\n  ", ". ", "é!", "\n"]), max_size=24)
TOKEN = re.compile(r"\w+|\s+|[^\w\s]+")


def count(text: str) -> int:
    return len(TOKEN.findall(text))


def row(reasoning: str) -> ReasoningRow:
    return lesson(question="Why?", reasoning=reasoning, answer="Blue.")


def measured(
    reasoning: str, *, seed: int = 0, until: int | None = None, n_truncated: int = 0
) -> MeasuredReasoning:
    """Tokens of the reasoning with random nll, and one of the answer behind it."""
    spans = [m.span() for m in TOKEN.finditer(reasoning)] + [(len(reasoning), len(reasoning) + 9)]
    start, end = np.array(spans[:until], dtype=np.int64).reshape(-1, 2).T
    nll = np.random.default_rng(seed).integers(0, 4, len(start)).astype(np.float32)
    return MeasuredReasoning(start, end, nll, n_truncated)


def rewrite(reasoning: str, seed: int = 0, **options: float | str) -> Rewritten:
    return Asap(AsapOptions.model_validate(options), count).rewrite(
        row(reasoning), measured(reasoning, seed=seed)
    )


@given(TEXTS, st.integers(1, 30), st.integers(0, 5))
def test_steps_go_one_by_one_until_the_text_that_is_left_fits(
    pieces: list[str], budget: int, seed: int
) -> None:
    reasoning = "".join(pieces).strip()
    if not reasoning:
        return
    found = rewrite(reasoning, seed, max_tokens=budget)
    spans = split_steps(reasoning)
    surprisal = np.array([step.surprisal for step in found.steps], dtype=float)
    parts = [start for start, _ in spans] + [len(reasoning)]
    size = np.array([count(reasoning[start:end]) for start, end in pairwise(parts)])
    order = removal_order(np.argsort(surprisal, kind="stable"), size, budget)
    kept, cut = list(range(len(spans))), reasoning
    while count(cut) > budget and len(kept) > 1:
        [step] = order.pop(0)
        kept.remove(step)
        cut = "".join(cut_to(reasoning, kept))
    assert [number for number, step in enumerate(found.steps) if step.kept] == kept
    assert found.text == f"<think>\n{cut}\n</think>\nBlue."
    assert (found.tokens_before, found.tokens_after) == (count(reasoning), count(cut))
    assert found.budget == budget
    assert found.status == ("original" if cut == reasoning else "rewritten")


def cut_to(reasoning: str, kept: list[int]) -> list[str]:
    """The kept steps, each with the gap behind it, but the last."""
    spans = split_steps(reasoning)
    ends = [start for start, _ in spans[1:]] + [len(reasoning)]
    return [reasoning[spans[step][0] : spans[step][1] if step == kept[-1] else ends[step]] for step in kept]


def test_a_large_step_that_overshoots_stays_and_code_is_one() -> None:
    code = "```\n" + "\n\n".join("x y z" for _ in range(9)) + "\n```"
    text = "\n\n".join(["a b", "c d", code, "e f", "g h", "i j"])
    for score in ("first-token", "later-tokens"):
        found = rewrite(text, max_token_ratio=0.9, score=score)
        assert found.text is not None
        assert code in found.text
        assert found.budget is not None
        assert found.tokens_after is not None
        assert 0 <= found.budget - found.tokens_after <= count("a b\n\n")


def test_each_step_says_why_it_stayed_or_went() -> None:
    text = "a b\n\n" + "c d " * 20 + "\n\ne f\n\nAs above, g.\n\nh i\n\nj k"
    spans = [match.span() for match in TOKEN.finditer(text)] + [(len(text), len(text) + 9)]
    start, end = np.array(spans).T
    nll = np.zeros(len(start), dtype=np.float32)
    for (begin, _), value in zip(split_steps(text), (1, 2, 3, 6, 4, 5), strict=True):
        nll[start.tolist().index(begin)] = value
    asap = Asap(AsapOptions(max_tokens=count(text) - 8, coherent=True), count)
    assert [step.why for step in asap.rewrite(row(text), MeasuredReasoning(start, end, nll, 0)).steps] == [
        "among the least surprising, up to 4 nats",
        "left for smaller steps: without it the budget would be missed by more",
        "needed by step 4, which stays",
        "as surprising as 4 nats or more",
        "among the least surprising, up to 4 nats",
        "as surprising as 4 nats or more",
    ]


def test_steps_are_chosen_by_the_score_that_is_asked_for() -> None:
    text = "a b c\n\nd e f"
    spans = [match.span() for match in TOKEN.finditer(text)] + [(len(text), len(text) + 9)]
    start, end = np.array(spans).T
    nll = np.array([9, 0, 8, 0, 8, 0, 0.5, 0, 1, 0, 1, 1], dtype=np.float32)
    seen = MeasuredReasoning(start, end, nll, 0)
    for score, left in (("first-token", "a b c"), ("later-tokens", "d e f")):
        found = Asap(AsapOptions(score=score, max_tokens=5), count).rewrite(row(text), seen)
        assert found.text == f"<think>\n{left}\n</think>\nBlue."


COHERENT = st.lists(
    st.sampled_from(["Step 1 is a.", "Step 2:", "So:", "As in step 1, b.", "The result above.", "c d e f"]),
    min_size=2,
    max_size=9,
)


@given(COHERENT, st.integers(1, 30), st.integers(0, 5))
def test_what_is_coherent_leaves_nothing_hanging(steps: list[str], budget: int, seed: int) -> None:
    found = rewrite("\n\n".join(steps), seed, max_tokens=budget, coherent=True)
    assert hanging(steps, np.array([step.kept for step in found.steps])) == {}


def test_a_step_that_is_announced_stays_with_the_one_that_announces_it() -> None:
    text = "So we get:\n\nthe sum of both.\n\nThat is all."
    spans = [match.span() for match in TOKEN.finditer(text)] + [(len(text), len(text) + 9)]
    start, end = np.array(spans).T
    nll = np.full(len(start), 2, dtype=np.float32)
    nll[[0, start.tolist().index(text.index("That"))]] = 9, 5
    seen = MeasuredReasoning(start, end, nll, 0)
    budget = count(text) - 5

    def left(**options: bool) -> str | None:
        asap = Asap(AsapOptions(max_tokens=budget, **options), count)
        return asap.rewrite(row(text), seen).text

    assert left() == row(text).response("So we get:\n\nThat is all.")
    assert left(coherent=True) == row(text).response("So we get:\n\nthe sum of both.")


@pytest.mark.parametrize(
    ("options", "tokens", "budget"),
    [
        ({}, 10_000, 4096),
        ({"max_tokens": 10}, 100, 10),
        ({"max_token_ratio": 0.29}, 100, 29),
        ({"max_token_ratio": 0.5}, 10_000, 5000),
        ({"max_tokens": 10, "max_token_ratio": 0.5}, 100, 10),
        ({"max_tokens": 90, "max_token_ratio": 0.5}, 100, 50),
    ],
)
def test_the_budget_is_the_smaller_of_what_is_given_and_else_the_published_one(
    options: dict[str, float], tokens: int, budget: int
) -> None:
    assert AsapOptions.model_validate(options).budget(tokens) == budget


def test_one_step_that_is_left_over_the_budget_is_said_to_be() -> None:
    assert rewrite("a b c\n\nd e f", max_tokens=1).reason == "one step left, longer than the budget"
    assert rewrite("a b c", max_tokens=1).reason == "a single step, longer than the budget"


def test_reasoning_that_was_not_measured_to_its_end_is_an_error_not_a_guess() -> None:
    reasoning = "a\n\nb\n\nc d"
    asap = Asap(AsapOptions(max_tokens=2), count)
    assert asap.rewrite(row(reasoning), measured(reasoning, until=3, n_truncated=5)).reason == TOO_LONG
    assert asap.rewrite(row(reasoning), measured(reasoning, until=5, n_truncated=3)).status == "error"
    # only the answer was cut
    assert asap.rewrite(row(reasoning), measured(reasoning, n_truncated=3)).status == "rewritten"
