"""Training rows that hold text of evaluation sets, on made-up rows and on GSM8K."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from datapruner.corpora.ingest import ingest
from datapruner.curation import contamination
from datapruner.curation.contamination import decontaminate
from datapruner.errors import InputError, UsageError

MATH = Path(__file__).parents[3] / ".." / "shared/data/math"
needs_gsm8k = pytest.mark.skipif(
    not (MATH / "gsm8k_test.parquet").is_file(), reason="needs the real rows in ../shared/data"
)

QUESTION = (
    "A farmer has seven hens and each hen lays two brown eggs every morning of the week, "
    "so how many eggs does she carry to market on Sunday?"
)
SET = [
    {"id": 7, "question": QUESTION, "answer": "98"},
    {"id": 8, "question": "How tall is it?", "answer": "9"},
]


def row(prompt: str, response: str = "Ninety-eight.") -> dict[str, str]:
    return {"instruction": prompt, "output": response}


ROWS = [
    row("Please solve: " + QUESTION.upper().replace(",", " --")),
    row("Which bird lays blue eggs?"),
    row("A farmer has seven hens and each hen lays two brown eggs every morning of summer. How many?"),
    row("Which bird lays blue eggs?", ""),
    row("Please solve: " + QUESTION.upper().replace(",", " --")),
]


def matches(table: pl.DataFrame, at: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table["matches"][at].to_list()
    return found


def test_an_evaluation_set_sent_as_samples_finds_the_same(tmp_path: Path) -> None:
    odd = {"choices": ["one", {"also": QUESTION}], "empty": " ", "number": 3}
    for rows in (SET, [*SET, odd, {"n": 1}], [{"only": QUESTION}] * 2):
        samples = list(contamination.as_samples(rows))
        assert len(samples) == len(rows)
        plain = decontaminate(ROWS, {"hens": rows}, home=tmp_path)
        assert decontaminate(ROWS, {"hens": samples}, home=tmp_path).table.equals(plain.table)
        report = ingest(samples, out=tmp_path / "samples.duckdb")
        assert (report.rows, report.rejected) == (len(rows), 0)


def test_a_shared_13_gram_drops_a_row_and_shows_what_it_shares(tmp_path: Path) -> None:
    result = decontaminate(ROWS, {"hens": SET}, home=tmp_path)
    assert result.table["status"].to_list() == ["dropped", "kept", "dropped", "rejected", "dropped"]
    [whole] = matches(result.table, 0)
    words = contamination.texts.split([QUESTION])[0].to_list()
    assert whole == {
        "set": "hens",
        "eval_row": 0,
        "shared_ngrams": len(words) - result.settings["ngram"]["hens"] + 1,
        "share": 1.0,
        "text": " ".join(words),
    }
    [part] = matches(result.table, 2)
    assert part["text"] == "a farmer has seven hens and each hen lays two brown eggs every morning of"
    assert 0 < part["share"] < 1
    assert f'holds text of hens row 0: "{part["text"]}"' in result.table["reason"][2]
    assert matches(result.table, 4) == matches(result.table, 0), "an exact copy has the verdict of the first"


def test_the_8_gram_convention_asks_for_70_per_cent_of_a_text(tmp_path: Path) -> None:
    result = decontaminate(ROWS, {"hens": SET}, convention="8-gram", home=tmp_path)
    assert result.table["status"].to_list() == ["dropped", "kept", "kept", "rejected", "dropped"]


def test_the_rows_add_up_and_the_set_is_accounted_for(tmp_path: Path) -> None:
    result = decontaminate(ROWS, {"hens": SET}, home=tmp_path)
    assert result.counts == {"ingested": 5, "kept": 1, "dropped": 3, "rejected": 1}
    assert result.notes == {
        "hens: rows": 2,
        "hens: found": 1,
        "hens: too short": 1,
        "hens: boilerplate n-grams": 0,
    }
    assert result.export(tmp_path / "clean.jsonl") == 1
    assert json.loads((tmp_path / "clean.jsonl").read_text()) == ROWS[1]
    assert result.export_table(tmp_path / "verdicts.jsonl") == 5


def test_n_follows_the_length_of_the_set_s_texts_down_to_8() -> None:
    def n(words: int) -> int:
        rows = [{"question": " ".join(f"w{at}x{k}" for k in range(words))} for at in range(40)]
        return contamination.evaluation_set("made", rows, "13-gram").n

    assert [n(30), n(13), n(10), n(8), n(3)] == [13, 13, 10, 8, 8]


def test_what_more_than_ten_evaluation_rows_hold_is_boilerplate(tmp_path: Path) -> None:
    ask = "answer the following question of a pupil step by step and be sure to end with the number"
    rows = [{"question": f"{ask} {' '.join(f'w{at}x{k}' for k in range(15))}"} for at in range(11)]
    chat = [row(f"{ask} one two three")]
    result = decontaminate(chat, {"made": rows}, home=tmp_path)
    assert result.counts["dropped"] == 0
    assert result.notes["made: boilerplate n-grams"] == len(ask.split()) - 13 + 1
    assert decontaminate(chat, {"made": rows[:10]}, home=tmp_path).counts["dropped"] == 1


def test_a_copied_question_is_found_although_its_answer_was_not_copied(tmp_path: Path) -> None:
    long = [{"question": QUESTION, "answer": " ".join(f"step{at}" for at in range(300))}]
    assert decontaminate(ROWS[:1], {"hens": long}, convention="8-gram", home=tmp_path).counts["dropped"] == 1


def test_texts_are_found_inside_nested_columns_and_only_in_those_named(tmp_path: Path) -> None:
    nested = [{"turns": [{"from": "human", "value": QUESTION}], "other": "nothing of note"}]
    assert decontaminate(ROWS, {"n": nested}, home=tmp_path).counts["dropped"] == 3
    assert decontaminate(ROWS, {"n": nested}, columns=["turns"], home=tmp_path).counts["dropped"] == 3
    assert decontaminate(ROWS, {"n": nested}, columns=["other"], home=tmp_path).counts["dropped"] == 0


def test_shares_and_runs_are_those_of_a_slow_search(tmp_path: Path) -> None:
    rng = random.Random(11)
    vocabulary = [f"w{k}" for k in range(6)]
    tests = [" ".join(rng.choices(vocabulary, k=20)) for _ in range(8)]
    chats = [" ".join(rng.choices(vocabulary, k=25)) for _ in range(25)]
    chats += [f"{rng.choice(vocabulary)} {tests[at][10:]}" for at in range(8)]
    result = decontaminate(
        [row(text, "Yes.") for text in chats], {"t": [{"q": t} for t in tests]}, home=tmp_path
    )

    def grams(text: str) -> list[tuple[str, ...]]:
        words = text.split()
        return [tuple(words[at : at + 13]) for at in range(len(words) - 12)]

    assert result.settings["ngram"]["t"] == 13
    for at, chat in enumerate(chats):
        expected = {}
        for number, test in enumerate(tests):
            if shared := set(grams(chat + " yes")) & set(grams(test)):
                expected[number] = len(shared) / len(set(grams(test)))
        found = matches(result.table, at) if result.table["status"][at] == "dropped" else []
        assert {match["eval_row"]: match["share"] for match in found} == pytest.approx(expected)
        assert all(
            match["text"] in chat + " yes" and match["text"] in tests[match["eval_row"]] for match in found
        )
    assert result.counts["dropped"] > 3


def test_an_evaluation_set_that_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no evaluation set is named"):
        decontaminate(ROWS, {}, home=tmp_path)
    with pytest.raises(InputError, match="evaluation set hens: there is no text"):
        decontaminate(ROWS, {"hens": [{"id": 1}]}, home=tmp_path)
    with pytest.raises(
        InputError, match=r"hens, row 0: there is no column 'prompt' \(columns are id, question"
    ):
        decontaminate(ROWS, {"hens": SET}, columns=["prompt"], home=tmp_path)
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"question": "a"}\n{"question": \n')
    with pytest.raises(InputError, match=r"broken\.jsonl, line 2: .*must be read whole"):
        decontaminate(ROWS, {"hens": broken}, home=tmp_path)


@needs_gsm8k
@pytest.mark.slow
def test_gsm8k_train_holds_no_question_of_the_test_set_and_solutions_to_it_hold_all(tmp_path: Path) -> None:
    test = {"gsm8k": MATH / "gsm8k_test.parquet"}
    train = MATH / "gsm8k_train.parquet"
    assert decontaminate(train, test, convention="8-gram", home=tmp_path).counts["dropped"] == 0
    few = decontaminate(train, test, home=tmp_path)
    assert 0 < few.counts["dropped"] < 20, "phrases in common"
    solutions = pl.read_parquet(MATH / "gsm8k_model_solutions_labelled.parquet").select(
        "question", response="solution"
    )
    all_of_it = decontaminate(solutions, test, convention="8-gram", home=tmp_path)
    assert all_of_it.counts["kept"] == 0
    assert all_of_it.notes["gsm8k: found"] == all_of_it.notes["gsm8k: rows"] == 1319


def test_the_longest_run_is_the_longest_unbroken_one() -> None:
    assert contamination._longest_run(np.array([2, 3, 9, 10, 11, 20]), 8) == (9, 10)
