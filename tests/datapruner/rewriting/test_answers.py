"""Final answers: found, and compared."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest

from datapruner.rewriting.answers import AnswerCheck, final_answer
from datapruner.rewriting.math_judge import MathJudge, _end, _exchange
from tests.waiting import PATIENCE


@pytest.fixture(scope="module")
def check() -> Iterator[AnswerCheck]:
    judge = MathJudge(seconds=PATIENCE)
    yield AnswerCheck(judge)
    judge.close()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("First \\boxed{3}. Then \\boxed{\\frac{1}{2}}, as asked.", "\\frac{1}{2}"),
        ("so \\boxed{\\left\\{1, 2\\right\\}}", "\\left\\{1, 2\\right\\}"),
        ("Answer: 3\nwhich is wrong.\n**Answer:** $x = 4$.", "$x = 4$"),
        ("They have 9 * 8 = 72 clips.\n#### 72", "72"),
        ("Adding up, the answer is 1.5. That was easy.", "1.5"),
        ("The final answer is: **7**", "7"),
        ("  Paris. ", "Paris"),
        ("\\boxed{4} but no, \\boxed{5", "4"),
    ],
)
def test_the_last_answer_that_a_text_marks_is_found(text: str, answer: str) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    "text", ["", " \n", "One line.\nAnother.", "word " * 30, "\\boxed{}", "Answer: " + "x" * 600]
)
def test_a_text_without_one_has_no_answer(text: str) -> None:
    assert final_answer(text) is None


@pytest.mark.parametrize("text", ["answer" + " " * 500_000, "\\boxed{" * 100_000, "\n answer is" * 75_000])
def test_hostile_texts_are_searched_quickly(text: str) -> None:
    started = time.perf_counter()
    final_answer(text)
    assert time.perf_counter() - started < PATIENCE  # it would be hours


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        ("\\frac12", "0.5"),
        ("$\\frac{1}{2}$", "\\dfrac{1}{2}"),
        ("1,000", "1000"),
        ("-12,345.50", "-12345.5"),
        ("x = 4", "4"),
        ("\\{1,2\\}", "\\{2, 1\\}"),
        ("204", "204 \\text{ minutes}"),
        ("2x+1", "1 + 2x"),
        ("18", "\\$18"),
        ("10!", "3628800"),
        ("Paris", " **paris**. "),
        ("(B)", "b"),
    ],
)
def test_answers_that_say_the_same_are_the_same(check: AnswerCheck, reference: str, candidate: str) -> None:
    assert check.same(reference, candidate)


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        ("5", "-5"),
        ("1,000", "1,00"),
        ("0.1", "0.10000001"),
        ("5", ".5"),
        ("10", "10!"),
        ("52", "5²"),
        ("[1, 2)", "[1, 2]"),
        ("1/3", "0.333"),
        ("silent", "listen"),
        ("Paris", "London"),
        ("12", "7} \\boxed{12"),
        ("12", "11 or 12"),
        ("12", ""),
        ("", ""),
    ],
)
def test_answers_that_differ_are_not_the_same(check: AnswerCheck, reference: str, candidate: str) -> None:
    assert not check.same(reference, candidate)


@pytest.mark.slow
def test_a_comparison_that_never_ends_is_given_up_and_the_next_one_is_done() -> None:
    judge = MathJudge(seconds=3.0)
    assert not judge.equal("1", "9^{9^{9^9}}")
    judge._seconds = PATIENCE
    assert judge.equal("\\frac12", "0.5")
    process = judge._process
    assert process is not None
    assert process.poll() is None
    del judge
    assert process.poll() is not None, "the process outlives its judge"


def test_a_comparison_that_ends_as_it_is_given_up_leaves_no_dying_process_to_the_next() -> None:
    for number in range(100):
        command = ["sed", "--unbuffered", "s/.*/true/"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            said = _exchange(process, {}, number / 50_000)  # about the time that an answer takes
            assert _exchange(process, {}, PATIENCE) == said
        finally:
            _end(process)
