"""The example corpus: reproducible, labelled truthfully, and spoilt only where its labels say so."""

import importlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMITTED = EXAMPLES / "instructions.jsonl"
Record = dict[str, str]


@pytest.fixture(scope="module")
def rows() -> list[Record]:
    return [json.loads(line) for line in COMMITTED.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def make_corpus() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        return importlib.import_module("make_corpus")


@pytest.fixture(scope="module")
def right_answers(make_corpus: ModuleType) -> dict[tuple[str, str], str]:
    return {question(vars(row)): row.output for row in make_corpus.clean_rows()}


def question(row: Record) -> tuple[str, str]:
    return row["instruction"], row["input"]


def planted(rows: list[Record], defect: str) -> list[Record]:
    return [row for row in rows if row["planted"] == defect]


def test_the_committed_file_is_what_the_script_writes(tmp_path: Path) -> None:
    target = tmp_path / "instructions.jsonl"
    subprocess.run([sys.executable, EXAMPLES / "make_corpus.py", target], check=True)
    assert target.read_bytes() == COMMITTED.read_bytes()


def test_the_file_is_small() -> None:
    assert COMMITTED.stat().st_size < 200_000


def test_every_row_has_the_same_columns_and_an_id_of_its_own(rows: list[Record]) -> None:
    assert {tuple(row) for row in rows} == {("id", "instruction", "input", "output", "planted")}
    assert len({row["id"] for row in rows}) == len(rows)


def test_each_defect_is_planted_twenty_times(rows: list[Record]) -> None:
    assert Counter(row["planted"] for row in rows) == {
        "": 304,
        "wrong_answer": 20,
        "other_question": 20,
        "truncated": 20,
        "duplicate": 20,
        "empty": 20,
    }


def test_the_readme_states_the_counts(rows: list[Record]) -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert f"{len(rows)} instruction rows" in readme
    for defect, count in Counter(row["planted"] for row in rows).items():
        label = f"`{defect}`" if defect else "(empty string)"
        assert f"| {label} | {count} |" in readme


def test_the_defects_are_spread_over_the_file(rows: list[Record]) -> None:
    quarter = len(rows) // 4
    for start in range(0, 4 * quarter, quarter):
        spoilt = sum(row["planted"] != "" for row in rows[start : start + quarter])
        assert 0.2 < spoilt / quarter < 0.3


def test_every_clean_row_carries_its_right_answer(
    rows: list[Record], right_answers: dict[tuple[str, str], str]
) -> None:
    for row in planted(rows, "") + planted(rows, "duplicate"):
        assert row["output"] == right_answers[question(row)]


def test_no_two_clean_rows_ask_the_same_thing(rows: list[Record]) -> None:
    assert max(Counter(question(row) for row in rows if row["planted"] != "duplicate").values()) == 1


def test_every_wrong_answer_differs_from_the_right_one(
    rows: list[Record], right_answers: dict[tuple[str, str], str]
) -> None:
    for row in planted(rows, "wrong_answer"):
        assert row["output"].strip()
        assert row["output"] != right_answers[question(row)]


def test_an_answer_to_another_question_is_the_right_answer_of_another_family(
    rows: list[Record], make_corpus: ModuleType
) -> None:
    clean = make_corpus.clean_rows()
    asked = {question(vars(row)): row for row in clean}
    taken = planted(rows, "other_question")
    for row in taken:
        own = asked[question(row)]
        assert row["output"] != own.output
        assert any(other.output == row["output"] and other.family != own.family for other in clean)
    assert Counter(row["output"] for row in taken) == Counter(asked[question(row)].output for row in taken)


def test_a_truncated_answer_breaks_off_inside_a_word_of_the_right_one(
    rows: list[Record], right_answers: dict[tuple[str, str], str]
) -> None:
    for row in planted(rows, "truncated"):
        right, length = right_answers[question(row)], len(row["output"])
        assert right.startswith(row["output"])
        assert right[length - 1].isalpha()
        assert right[length].isalpha()
        assert 0.3 <= length / len(right) <= 0.7


def test_a_duplicate_follows_a_clean_row_of_the_same_text(rows: list[Record]) -> None:
    seen: set[tuple[str, str, str]] = set()
    for row in rows:
        text = (*question(row), row["output"])
        if row["planted"] == "duplicate":
            assert text in seen
        elif row["planted"] == "":
            seen.add(text)


def test_only_the_rows_labelled_empty_have_no_answer(rows: list[Record]) -> None:
    assert all((row["output"].strip() == "") == (row["planted"] == "empty") for row in rows)


def test_the_answers_vary_in_length_from_one_word_to_well_over_a_hundred(rows: list[Record]) -> None:
    lengths = [len(row["output"].split()) for row in planted(rows, "")]
    assert min(lengths) == 1
    assert 100 < max(lengths) <= 150
    for low, high in [(1, 5), (5, 20), (20, 60), (60, 151)]:
        assert sum(low <= length < high for length in lengths) >= 20


def test_no_way_of_asking_dominates(rows: list[Record]) -> None:
    openings = Counter(" ".join(row["instruction"].split()[:4]) for row in rows)
    assert openings.most_common(1)[0][1] <= 0.04 * len(rows)


def test_every_python_answer_compiles(make_corpus: ModuleType) -> None:
    answers = [row.output for row in make_corpus.clean_rows() if row.family == "code"]
    assert len(answers) > 10
    for answer in answers:
        compile(answer, "answer", "exec")


def test_a_slip_changes_the_answer_and_not_the_question(make_corpus: ModuleType) -> None:
    problems = list(importlib.import_module("problems").solved_problems())
    assert len(problems) > 30
    assert all(right != wrong and wrong not in asked for _, asked, right, wrong in problems)


def test_a_question_written_twice_is_refused(
    make_corpus: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "content.toml").write_text(
        '[fact]\nask = ["{x}"]\nitems = [["Who?", "I"], ["Who?", "You"]]\n'
    )
    monkeypatch.setattr(make_corpus, "HERE", tmp_path)
    with pytest.raises(ValueError, match="same question twice"):
        make_corpus.clean_rows()


def test_a_wrong_answer_that_is_right_is_refused(
    make_corpus: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "content.toml").write_text('[fact]\nask = ["{x}"]\nitems = [["Who?", "I", "I"]]\n')
    monkeypatch.setattr(make_corpus, "HERE", tmp_path)
    with pytest.raises(ValueError, match=r"wrong answer to 'Who\?' is the right one"):
        make_corpus.clean_rows()
