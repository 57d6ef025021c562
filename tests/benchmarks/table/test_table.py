"""The table of all methods is made on a few made-up rows, and the same command goes on where it stood."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from benchmarks.table import __main__ as table
from benchmarks.table.asked import Asked
from benchmarks.table.corpora import CORPORA, PLANTED
from benchmarks.table.data import FILES, Amounts, Data
from benchmarks.table.joined import Line
from benchmarks.table.planting import RULES, SOUND
from benchmarks.table.training import Setting, Trained, planted
from scorers.methods.findings import Findings, parsed
from tests.tiny_model import FACTS

Make = Callable[..., Findings]

COLUMNS = {
    "alpaca": ("instruction", "input", "output"),
    "pairs": ("instruction", "input", "output_gpt4", "output_davinci003"),
    "longest": ("instruction", "input", "output_original"),
    "dolly": ("instruction", "input", "output"),
    "evol": ("instruction", "output"),
    "user": ("instruction", "input", "output"),
    "solutions": ("question", "solution"),
    "gsm8k": ("question", "answer"),
    "gsm8k-train": ("question", "answer"),
}
FEW = Amounts(rows=12, each=1, labelled=2, held=4, clean=4, longest=400)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    for number, (name, columns) in enumerate(COLUMNS.items()):
        rows = [
            {
                column: f"{at}. {question}"
                if place == 0
                else ""
                if column == "input"
                else f"{answer} Of the "
                f"sources that were asked it is {name}, line {at * 7 + number}, that says so in {column}."
                for place, column in enumerate(columns)
            }
            | {"id": at, "is_correct": at % 2 == 0}
            for at, (question, answer) in enumerate(FACTS)
        ]
        write(folder / FILES[name], rows)
    write(folder / FILES["rules"], [{"id": at, "defects": ["url_reference"]} for at in (1, 5, 8)])
    return folder


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(exist_ok=True)
    pl.DataFrame(rows).write_parquet(path)


@pytest.fixture
def make(data: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """The command for the methods named, and what it found."""
    monkeypatch.setattr(table, "SMALL", FEW)
    monkeypatch.setattr(table, "TRAINED", {FEW: Trained(tokens=64, seeds=2, read=4, rates=(0.0005, 0.004))})
    setting = Setting("a setting", planted, 0.5, ("alpaca",))
    monkeypatch.setattr(table, "settings", lambda _: [setting])
    monkeypatch.setattr(table, "CORPORA", {PLANTED: CORPORA[PLANTED]})
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- findings -->\nold\n<!-- end of findings -->\nafter\n", encoding="utf-8")
    given = {"data": data, "model": tiny_folder, "device": "cpu", "home": tmp_path / "home"}
    given |= {"out": tmp_path / "findings.json", "page": page}

    def command(*methods: str) -> Findings:
        arguments = [part for name, value in given.items() for part in (f"--{name}", str(value))]
        assert table.main([*arguments, "--only", *methods]) == 0
        return parsed(json.loads((tmp_path / "findings.json").read_text(encoding="utf-8")))

    return command


def test_a_folder_without_the_corpora_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"lacks alpaca/alpaca_52k\.parquet"):
        table.main(["--data", str(tmp_path)])


def test_says_of_each_method_what_it_keeps_and_what_it_did_and_goes_on_where_it_stood(
    make: Make, tmp_path: Path
) -> None:
    found = make("rho", "length")
    assert [each.label for each in found.methods] == ["rho", "length"]
    for each in found.methods:
        kinds = {one.kind: one.rows for one in each.kept if one.corpus == "planted"}
        assert kinds == {SOUND: 6, **dict.fromkeys(RULES, 1)}
        assert sum(one.kept for one in each.kept if one.corpus == "planted") == 6, "half of twelve"
        assert not each.left_out
        [change] = each.changes
        assert change.low <= change.difference <= change.high
        assert (change.setting, change.seeds, change.rows) == ("a setting", 2, 4)
    [of_length] = found.of("length")
    assert of_length.length is not None
    assert of_length.length.correlation == pytest.approx(1)
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- findings -->\n")
    assert text.endswith("<!-- end of findings -->\nafter\n")
    assert "old" not in text
    assert text.count("| `rho` |") == 1

    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("home/evaluations/*/*.npz")}
    more = make("rho", "length", "qtuning")
    assert tuple(each for each in more.methods if each.method != "qtuning") == found.methods
    assert [each.label for each in more.methods if each.changes and not each.kept] == ["qtuning, in training"]
    after = {path: path.stat().st_mtime_ns for path in tmp_path.glob("home/evaluations/*/*.npz")}
    assert before.items() <= after.items(), "what was trained is not trained again"
    assert len(after) == len(before) + 4, "two each of the method and of it in training"


@pytest.mark.parametrize("name", CORPORA)
def test_every_corpus_has_a_label_for_every_row_and_others_beside(name: str, data: Path) -> None:
    corpus = CORPORA[name](Data(data, FEW))
    assert len(corpus.rows) == len(corpus.labels) > 1
    assert set(corpus.seen) <= set(corpus.labels)
    assert len(set(corpus.labels)) > 1
    assert all(row["instruction"] and row["output"] for row in corpus.rows)
    assert not {row["output"] for row in corpus.rows} & {row["output"] for row in corpus.beside}


def test_rows_are_labelled_as_the_files_have_it(data: Path) -> None:
    made = {name: corpus_of(Data(data, FEW)) for name, corpus_of in CORPORA.items()}
    for name, label, words in (
        ("GPT-4's answers", "GPT-4", "in output_gpt4."),
        ("longest 1k", "selected", "in output_original."),
    ):
        corpus = made[name]
        for row, given in zip(corpus.rows, corpus.labels, strict=True):
            assert row["output"].endswith(words) == (given == label)
    for name, label, numbers in (
        ("wrong solutions", "wrong", range(1, 20, 2)),
        ("rules' faults", "faulty", (1, 5, 8)),
    ):
        corpus = made[name]
        for row, given in zip(corpus.rows, corpus.labels, strict=True):
            number = int(row["instruction"].partition(".")[0])
            assert (number in numbers) == (given == label)


def test_what_was_left_out_is_said_with_the_reason() -> None:
    without = {"left_out": "no model"}
    line = Line(Asked("ppl", "", {}), {"planted": without, "b": without}, {"c": {"left_out": "no time"}})
    found = line.document()
    assert found["left_out"] == ["planted, b: no model", "c: no time"]
    assert (found["kept"], found["changes"]) == ([], [])


@pytest.mark.parametrize(("method", "correlation"), [("ppl", 0.5), ("ifd", -0.5)])
def test_a_length_correlation_is_that_of_the_end_that_is_kept(method: str, correlation: float) -> None:
    length = {"column": method, "correlation": -0.5, "rows": 9}
    line = Line(Asked(method, "", {}), {"planted": {"kept": {}, "tokens": 0.5, "length": length}})
    assert line.document()["length"]["correlation"] == correlation
