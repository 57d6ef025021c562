"""Runs as they lie in the home: named by what decides them, found again, and never half there."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import datapruner
from datapruner.corpora import store
from datapruner.corpora.corpus import Corpus
from datapruner.errors import InputError, UsageError
from datapruner.explaining.explain import explain
from datapruner.measuring.measure import Machine
from datapruner.measuring.workers.local import IdleWorkers
from datapruner.progress import Silent
from datapruner.request.config import Measuring, MethodChoice, RunConfig
from datapruner.request.keep import Keep
from datapruner.result import Result
from datapruner.runs import pipeline, published
from datapruner.system import files
from tests import tiny_model
from tests.pipeline import Prune

ROWS = [{"prompt": f"p{i}", "completion": f"c{i}", "note": i} for i in range(5)]


def ingested(rows: Any, home: Path) -> Path:
    return store.ingest_to(rows, {}, home, Silent())


# Corpora


def test_the_same_rows_are_one_corpus(tmp_path: Path) -> None:
    assert ingested(ROWS, tmp_path) == ingested(iter(ROWS), tmp_path)
    assert len(list((tmp_path / "corpora").iterdir())) == 1


@pytest.mark.parametrize(
    "other",
    [
        ROWS[::-1],
        ROWS[:4],
        [{**row, "note": 0} for row in ROWS],
        [{"prompt": row["prompt"], "completion": row["completion"]} for row in ROWS],
        [*ROWS[:4], {**ROWS[4], "completion": ""}],
    ],
    ids=["another order", "fewer rows", "other notes", "no notes", "one rejected"],
)
def test_rows_that_differ_in_anything_are_another_corpus(tmp_path: Path, other: Any) -> None:
    first = ingested(ROWS, tmp_path)
    assert ingested(other, tmp_path) != first
    with Corpus(first) as corpus:
        (batch,) = corpus.originals()
    assert batch.to_pylist() == ROWS


def test_when_ingesting_fails_nothing_is_left_in_the_home(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        ingested([{"nothing": "of use"}], tmp_path)
    assert list((tmp_path / "corpora").iterdir()) == []


# Identity


def test_asking_again_gives_the_same_run_with_the_same_file(prune: Prune) -> None:
    first = prune("donod", 0.5)
    text = (first.run.folder / "run.json").read_bytes()
    again = prune("donod", 0.5)
    assert again.run.run_id == first.run.run_id
    assert (again.run.folder / "run.json").read_bytes() == text
    assert sorted(path.name for path in again.run.folder.iterdir()) == [
        "run.duckdb",
        "run.json",
        "token_scores.parquet",
    ]


def test_whatever_decides_a_result_decides_the_id(prune: Prune) -> None:
    ids = [
        prune(**arguments).run.run_id
        for arguments in (
            {"method": "qtuning", "keep": 0.5},
            {"method": "qtuning", "keep": 0.25},
            {"method": "qtuning", "keep": 12},
            {"method": "qtuning", "keep": 0.5, "token_keep": 0.9},
            {"method": "qtuning", "keep": 0.5, "seed": 1},
            {"method": "donod", "keep": 0.5},
        )
    ]
    assert len(set(ids)) == len(ids)


# Without the model


@pytest.fixture(scope="module")
def unread(
    tmp_path_factory: pytest.TempPathFactory, corpus_file: Path, options: dict[str, Any]
) -> tuple[Result, Result]:
    """A run that asks nothing of the model, in a home where it has read nothing; and one that needs it."""
    home = tmp_path_factory.mktemp("unread")
    drawn = datapruner.prune(corpus_file, "random", 0.5, home=home, **options)
    return drawn, datapruner.prune(corpus_file, "ppl", 0.5, home=home, **options)


def test_a_run_that_asks_nothing_of_the_model_has_its_tokens_and_no_more(
    unread: tuple[Result, Result], prune: Prune
) -> None:
    drawn, read = unread[0], prune("random", 0.5)
    said = ["ppl", "entropy", "el2n", "head_grad_norm", "head_grad_dot"]
    assert drawn.scores.drop(said).equals(read.scores.drop(said))
    assert drawn.masks.equals(read.masks)
    assert drawn.scores.select(said).null_count().row(0) == (len(drawn.scores),) * 5
    assert read.scores["ppl"].null_count() < len(read.scores)
    assert drawn.run.measured == len(tiny_model.MEASURED) + 1
    assert asdict(drawn.report) == asdict(read.report)
    for name in ("input_ids", "labels"):
        assert drawn.subset[name][:] == read.subset[name][:]
    tokens = drawn.token_scores
    assert tokens.drop("nll", "entropy").equals(read.token_scores.drop("nll", "entropy"))
    assert tokens.select("nll", "entropy").null_count().row(0) == (len(tokens), len(tokens))


def test_its_samples_are_explained_without_what_the_model_says(unread: tuple[Result, Result]) -> None:
    drawn = unread[0]
    kept = drawn.masks["row"][0]
    found = explain(drawn.run.run_id, f"row:{kept}", drawn.home)
    assert {token.keep for token in found.tokens} == {True}
    assert {(token.nll, token.entropy) for token in found.tokens} == {(None, None)}
    assert found.hardest(3) == []
    assert found.prompt is not None
    assert "ppl" not in found.scores


def test_what_the_model_has_read_is_shown_by_runs_that_do_not_ask_it(
    unread: tuple[Result, Result], corpus_file: Path, options: dict[str, Any]
) -> None:
    drawn, read = unread
    again = datapruner.prune(corpus_file, "random", 0.5, home=read.home, **options)
    assert read.run.measured == drawn.run.measured
    assert again.run.measured == 0
    assert again.scores["ppl"].equals(read.scores["ppl"])
    assert again.scores["keep"].equals(drawn.scores["keep"])
    assert again.run.lineage["proxy"] == read.run.lineage["proxy"] != drawn.run.lineage["proxy"]


# The run file


def test_a_run_read_back_is_the_run_that_was_made(prune: Prune) -> None:
    made = prune("qtuning", 0.4, seed=2).run
    found = published.read(made.folder)
    assert (found.run_id, found.config, found.report) == (made.run_id, made.config, made.report)
    assert found.lineage == made.lineage
    assert found.database == made.database


def test_the_run_file_has_configuration_lineage_and_report(first_run: Result, corpus_file: Path) -> None:
    document = json.loads((first_run.run.folder / "run.json").read_text())
    assert document["config"]["source"] == str(corpus_file)
    assert document["config"]["keep"] == {"share": 0.5, "count": None, "tokens": None}
    assert document["report"] == asdict(first_run.report)
    lineage = document["lineage"]
    assert lineage["sources"][0]["name"] == corpus_file.name
    assert len(lineage["sources"][0]["sha256"]) == 64
    assert lineage["proxy"]["dtype"] == "float32"
    assert {"datapruner", "torch", "transformers", "numpy"} <= set(lineage["packages"])
    assert published.corpus_path(first_run.run, first_run.home).is_file()


def test_the_report_counts_reasons_quadrants_and_thresholds(first_run: Result) -> None:
    report = first_run.report
    assert sum(report.reasons.values()) == report.ingested
    assert report.reasons["exact duplicate"] == 2
    assert list(report.reasons.values()) == sorted(report.reasons.values(), reverse=True)
    assert sum(report.quadrants.values()) == first_run.scores["quadrant"].drop_nulls().len()
    assert {"alpha", "ppl_low", "ppl_high", "entropy_low", "entropy_high"} <= set(report.thresholds)
    assert report.shapes == {"alpaca": 26, "messages": 1, "sharegpt": 1}


def test_a_json_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, {"a": "é"})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "é"}
    assert [each.name for each in tmp_path.iterdir()] == ["x.json"]


# Finding runs


@pytest.fixture
def shelf(first_run: Result, tmp_path: Path) -> Path:
    """A home with three runs: abc1, abd2 and e3, made in this order, and one that was cut short."""
    for name in ("abc1", "abd2", "e3"):
        folder = shutil.copytree(first_run.run.folder, tmp_path / "runs" / name)
        document = json.loads((folder / "run.json").read_text())
        files.write_json(folder / "run.json", document | {"run": name})
    (tmp_path / "runs" / "f4").mkdir()
    return tmp_path


def test_runs_are_listed_newest_first_and_unfinished_ones_are_not(shelf: Path) -> None:
    assert [run.run_id for run in published.history(shelf)] == ["e3", "abd2", "abc1"]
    assert published.latest(shelf).run_id == "e3"


@pytest.mark.parametrize(("start", "found"), [("abc", "abc1"), ("abd2", "abd2"), ("e", "e3")])
def test_a_run_is_found_by_the_start_of_its_id(shelf: Path, start: str, found: str) -> None:
    assert published.load(start, shelf).run_id == found


@pytest.mark.parametrize(
    ("start", "message"),
    [("ab", "2 runs with an id that starts with 'ab'"), ("f4", "no run"), ("x", "no run")],
)
def test_an_id_that_fits_no_run_or_several_is_an_error(shelf: Path, start: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"{message}.*see `datapruner runs`"):
        published.load(start, shelf)


def test_without_any_run_the_latest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run yet"):
        published.latest(tmp_path)


# Running on a corpus


def test_a_published_corpus_is_run_on_directly(
    prune: Prune, corpus_file: Path, home: Path, tiny_folder: Path, idle: IdleWorkers
) -> None:
    whole = prune("ppl", 0.5).run
    config = RunConfig(
        source=str(corpus_file),
        measuring=Measuring(model=str(tiny_folder)),
        methods=[MethodChoice(name="ppl")],
        keep=Keep(share=0.5),
    )
    with Corpus(ingested(corpus_file, home)) as corpus:
        run = pipeline.run_on(corpus, config, home, Machine(["cpu"], idle=idle), Silent())
    assert (run.run_id, run.report) == (whole.run_id, whole.report)
