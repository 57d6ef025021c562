"""Answers that a trained model writes, compared with the right ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from datapruner.evaluation import reading
from datapruner.evaluation.reading import answered
from datapruner.rewriting.answers import AnswerCheck
from datapruner.rewriting.math_judge import MathJudge
from datapruner.tuning.examples import Examples
from datapruner.tuning.training import Trainee
from tests.tiny_model import rendered

QUESTIONS = [
    [{"role": "user", "content": "7 times 6?"}, {"role": "assistant", "content": "#### 42"}],
    [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Is it a half, and how long is this question?"},
        {"role": "assistant", "content": "So it is.\n#### 1/2"},
    ],
]


@pytest.fixture
def check() -> Iterator[AnswerCheck]:
    judge = MathJudge()
    yield AnswerCheck(judge)
    judge.close()


def test_a_model_that_learned_the_answers_gives_them(
    tiny_folder: Path, check: AnswerCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LONGEST_ANSWER", 24)
    trainee = Trainee(tiny_folder, "cpu", full=True)
    rows = [rendered(trainee.tokenizer, messages) for messages in QUESTIONS]
    ids = [np.array(tokens, np.int32) for tokens, _ in rows]
    examples = Examples.of(ids, [np.array(where, np.int32) for _, where in rows])
    many = Examples.of(ids * 60, [np.array(where, np.int32) for _, where in rows] * 60)
    assert not answered(trainee, examples, ["42", "1/2"], check).any()
    trainee.train(many, seed=0, rate=1e-2, number=60)
    assert answered(trainee, examples, ["42", "1/2"], check).tolist() == [True, True]
    assert answered(trainee, examples, ["42.0", "0.5"], check).tolist() == [True, True]
    assert answered(trainee, examples, ["43", "1/2"], check).tolist() == [False, True]
