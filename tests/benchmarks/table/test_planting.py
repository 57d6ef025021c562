"""Each planted defect is what its name says, and nothing else of the rows changes."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from benchmarks.table.planting import (
    LANGUAGES,
    REFUSALS,
    RULES,
    SOUND,
    Case,
    gibberish,
    in_another_language,
    looped,
    planted,
    refused,
    swapped,
    truncated,
)

ANSWERS = [
    "Bees make honey, and wax for the cells. They dance to say where flowers are! It's 3 km away.",
    "First, heat the oven.\n\n- Mix flour and water.\n- Bake for 40 minutes; let it cool.",
    "Two words",
    "空气对短波的散射比长波强，所以天空是蓝色的。",
]
ROWS = [
    {"instruction": f"Question {at}?", "input": "", "output": f"{at}. {ANSWERS[at % 4]}"} for at in range(40)
]
each_answer = pytest.mark.parametrize("answer", ANSWERS)
each_seed = pytest.mark.parametrize("seed", range(5))


def case(answer: str, seed: int = 0) -> Case:
    return Case(answer, "another answer", random.Random(seed))


@each_answer
def test_a_swapped_answer_is_that_of_another_row(answer: str) -> None:
    assert swapped(case(answer)) == "another answer"


@each_seed
@each_answer
def test_a_truncated_answer_is_a_beginning_that_ends_in_no_sentence(answer: str, seed: int) -> None:
    made = truncated(case(answer, seed))
    assert answer.startswith(made)
    assert 0 < len(made) < len(answer)
    assert made[-1] not in ".!?,;:。！？ \n"
    if " " in answer:
        assert not answer[len(made)].isalnum(), "cut within a word"


@each_seed
@pytest.mark.parametrize("answer", ANSWERS[:2])
def test_a_loop_is_the_first_half_and_its_last_words_over_and_over(answer: str, seed: int) -> None:
    made, words = looped(case(answer, seed)).split(), answer.split()
    half = len(words) // 2
    assert made[:half] == words[:half]
    rest = made[half:]
    period = next(size for size in range(1, 7) if rest[:size] * (len(rest) // size) == rest)
    assert rest[:period] == words[half - period : half]
    assert len(rest) // period >= 2
    assert 1.5 * len(answer) <= len(" ".join(made)) <= 3 * len(answer)


@each_seed
def test_another_language_is_none_of_the_questions_and_about_as_long(seed: int) -> None:
    answer = ANSWERS[0] * 8  # longer than all sentences of a language
    made = in_another_language(case(answer, seed))
    of = [name for name, sentences in LANGUAGES.items() if any(each in made for each in sentences)]
    assert len(of) == 1
    assert re.sub("|".join(map(re.escape, LANGUAGES[of[0]])), "", made).strip() == ""
    assert len(answer) <= len(made) <= len(answer) + max(map(len, LANGUAGES[of[0]]))


@each_answer
def test_gibberish_has_the_shape_of_the_answer_and_other_letters(answer: str) -> None:
    made = gibberish(case(answer))
    assert len(made) == len(answer)
    for now, before in zip(made, answer, strict=True):
        assert now.isalpha() if before.isalpha() else now == before
    assert sum(a == b for a, b in zip(made, answer, strict=True) if b.isalpha()) < len(answer) / 4


def test_a_refusal_is_of_a_template() -> None:
    assert {refused(case("an answer", seed)) for seed in range(60)} == set(REFUSALS)


def test_each_defect_is_planted_in_as_many_rows_and_the_others_stay() -> None:
    made, labels = planted(ROWS, 5, seed=1)
    assert Counter(labels) == dict.fromkeys(RULES, 5) | {SOUND: 10}
    for row, before, label in zip(made, ROWS, labels, strict=True):
        assert (row == before) == (label == SOUND)
        assert row | {"output": ""} == before | {"output": ""}
    exchanged = [at for at, label in enumerate(labels) if label == "swapped"]
    assert {made[at]["output"] for at in exchanged} == {ROWS[at]["output"] for at in exchanged}


def test_the_same_seed_plants_the_same_and_another_elsewhere() -> None:
    assert planted(ROWS, 5, seed=1) == planted(ROWS, 5, seed=1)
    assert planted(ROWS, 5, seed=1)[1] != planted(ROWS, 5, seed=2)[1]


def test_too_few_rows_for_the_defects_are_refused() -> None:
    with pytest.raises(ValueError, match="40 rows are too few for 6 defects in 7 rows each"):
        planted(ROWS, 7, seed=0)
