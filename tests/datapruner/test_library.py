"""The whole job through the Python API, on a tiny proxy model that really runs."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
import transformers as tf

import datapruner
from datapruner.errors import (
    UsageError,
    WorkerError,
)
from datapruner.measuring import engine
from datapruner.measuring.measure import Machine
from datapruner.measuring.workers import local
from datapruner.result import Result
from scorers.methods.registry import OWN
from tests import reference, tiny_model
from tests.pipeline import Prune
from tests.proxies import Sample

METHODS = [method.name for method in OWN if method.name != "judge"]  # which asks a teacher: judging/test_rows
DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


def status_counts(result: Result) -> dict[str, int]:
    return dict(result.scores["status"].value_counts().iter_rows())


# What goes in comes out, one way or another


@pytest.mark.parametrize("method", METHODS)
def test_every_ingested_row_is_kept_pruned_rejected_or_errored(prune: Prune, method: str) -> None:
    result = prune(method, 0.4)
    report, scores = result.report, result.scores
    assert scores["row"].to_list() == list(range(len(tiny_model.LINES)))
    assert report.ingested == len(scores)
    assert status_counts(result) == {
        "kept": report.kept,
        "pruned": report.pruned,
        "rejected": report.rejected,
        "error": report.errored,
    }
    assert report.ingested == report.kept + report.pruned + report.rejected + report.errored
    assert (report.rejected, report.errored) == (len(tiny_model.REJECTED), len(tiny_model.TOO_LONG))
    assert report.duplicates == len(tiny_model.COPIES)
    assert report.kept >= round(0.4 * len(tiny_model.MEASURED))
    assert scores.filter(pl.col("keep"))["status"].unique().to_list() == ["kept"]
    assert scores["keep"].null_count() == scores["reason"].null_count() == 0
    assert report.response_tokens == scores["n_response_tokens"].sum()
    assert report.kept_tokens == scores["n_kept_tokens"].sum() == result.masks["kept_tokens"].list.len().sum()
    assert scores.filter(~pl.col("keep"))["n_kept_tokens"].to_list() == [0] * (len(scores) - report.kept)


def test_a_duplicate_is_pruned_with_the_scores_of_the_first_and_its_row_as_the_reason(prune: Prune) -> None:
    scores = prune("ppl", 1.0).scores
    for row, first in tiny_model.COPIES.items():
        if first in tiny_model.TOO_LONG:
            assert scores["status"][row] == scores["status"][first] == "error"
            continue
        assert (scores["status"][row], scores["reason"][row]) == ("pruned", f"exact duplicate of row {first}")
        assert (scores["status"][first], scores["ppl"][first]) == ("kept", scores["ppl"][row])


def test_a_duplicate_is_measured_once(first_run: Result) -> None:
    unique = len(tiny_model.LINES) - len(tiny_model.REJECTED) - len(tiny_model.COPIES)
    assert first_run.run.measured == unique
    assert first_run.token_scores["sample_id"].n_unique() == len(tiny_model.MEASURED)


def test_a_row_that_is_too_long_is_cut_and_what_it_lost_is_counted(
    first_run: Result, fp64_model: Any
) -> None:
    ids, response = tiny_model.rendered(
        fp64_model[1], tiny_model.messages_of(tiny_model.LINES[tiny_model.CUT])
    )
    row = first_run.scores.row(tiny_model.CUT, named=True)
    assert row["n_prompt_tokens"] + row["n_response_tokens"] == tiny_model.POSITIONS == len(ids)
    assert row["n_response_tokens"] == len(response)
    assert row["n_truncated"] == first_run.report.truncated_tokens > 100


def test_a_row_without_response_after_the_cut_is_an_error_with_a_remedy(first_run: Result) -> None:
    for row in tiny_model.TOO_LONG:
        found = first_run.scores.row(row, named=True)
        assert (found["status"], found["keep"], found["ppl"]) == ("error", False, None)
        assert "no response token left" in found["reason"]
        assert "raise max_length" in found["reason"]


def test_rejected_rows_say_what_is_wrong_and_what_to_do(first_run: Result) -> None:
    reasons = first_run.scores["reason"]
    empty, null, broken = (reasons[row] for row in tiny_model.REJECTED)
    assert "'output' is empty (" in empty
    assert "'output' is null (" in null
    assert "not JSON" in broken
    assert first_run.scores["sample_id"].null_count() == len(tiny_model.REJECTED)


@pytest.fixture(scope="module")
def strict_run(prune: Prune) -> Result:
    """With another proxy key: a limit that may not be exceeded, and the gradient of the tied head."""
    return prune("donod", 0.5, options={"tied_exact": True}, overflow="error", max_length=100)


def test_with_overflow_error_long_rows_are_errors_and_nothing_is_cut(strict_run: Result) -> None:
    errored = strict_run.scores.filter(pl.col("status") == "error")
    assert {tiny_model.CUT, *tiny_model.TOO_LONG} <= set(errored["row"])
    assert errored["reason"].str.contains(r"\d+ tokens, more than max_length 100; raise max_length").all()
    assert (strict_run.report.errored, strict_run.report.truncated_tokens) == (len(errored), 0)
    assert max(strict_run.token_scores["position"]) < 100


# The numbers


@pytest.fixture(scope="module")
def fp64_model(tiny_folder: Path) -> tuple[Any, Any]:
    """The model in fp64 and its tokenizer."""
    model = tf.AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float64)
    return model.eval().requires_grad_(False), tf.AutoTokenizer.from_pretrained(tiny_folder)


def test_every_score_equals_the_fp64_reference_on_the_same_tokens(
    first_run: Result, fp64_model: tuple[Any, Any]
) -> None:
    model, tokenizer = fp64_model
    scores, tokens = first_run.scores, first_run.token_scores
    worst: dict[str, float] = {}
    for row in tiny_model.MEASURED:
        ids, response = tiny_model.rendered(tokenizer, tiny_model.messages_of(tiny_model.LINES[row]))
        expected = reference.measure(model, Sample(np.array(ids), np.array(response)))
        line, mine = scores.row(row, named=True), tokens.filter(pl.col("row") == row)
        assert mine["position"].to_list() == response
        assert (line["n_prompt_tokens"], line["n_response_tokens"]) == (
            len(ids) - len(response),
            len(response),
        )
        pairs = {
            "ppl": (line["ppl"], np.exp(expected.nll.mean())),
            "entropy": (line["entropy"], expected.entropy.mean()),
            "el2n": (line["el2n"], expected.el2n.mean()),
            "head_grad_norm": (line["head_grad_norm"], expected.grad.norm().item()),
            "token nll": (mine["nll"], expected.nll),
            "token entropy": (mine["entropy"], expected.entropy),
        }
        dot = (expected.grad * expected.weight).sum().item()
        scale = expected.grad.norm().item() * expected.weight.norm().item()
        errors = {name: reference.relative(*pair) for name, pair in pairs.items()}
        errors["head_grad_dot"] = abs(line["head_grad_dot"] - dot) / scale
        worst = {name: max(error, worst.get(name, 0)) for name, error in errors.items()}
    assert max(worst.values()) < 2e-5, worst


def test_the_tokens_are_those_of_the_chat_template(first_run: Result, fp64_model: tuple[Any, Any]) -> None:
    for sample in first_run.subset.to_list():
        messages = tiny_model.messages_of({k: v for k, v in sample.items() if v is not None})
        assert sample["input_ids"] == tiny_model.rendered(fp64_model[1], messages)[0]


# Nothing is measured twice


@pytest.mark.parametrize(
    ("method", "how_much"),
    [("qtuning", {"keep": 0.2}), ("donod", {"keep": 5}), ("random", {"keep_tokens": 60})],
)
def test_another_method_or_amount_starts_no_worker(
    prune: Prune, monkeypatch: pytest.MonkeyPatch, method: str, how_much: dict[str, Any]
) -> None:
    monkeypatch.setattr(local, "PYTHON", ("/there/is/no/python",))
    assert prune(method, **how_much).run.measured == 0


def test_without_an_interpreter_a_corpus_that_is_not_measured_yet_is_an_error(
    tmp_path: Path, corpus_file: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "PYTHON", ("/there/is/no/python",))
    monkeypatch.setattr(engine, "Machine", Machine)  # without processes that are there already
    with pytest.raises(WorkerError, match=r"cannot start a measuring process.*/there/is/no/python"):
        datapruner.prune(corpus_file, "ppl", 0.5, home=tmp_path, **options)


@pytest.mark.slow
def test_only_rows_that_are_new_are_measured(prune: Prune, home: Path, options: dict[str, Any]) -> None:
    rows = [line for line in tiny_model.LINES[:6] if isinstance(line, dict)]
    new = {"instruction": "Something that the other rows do not ask.", "output": "A new answer."}
    before = prune("ppl", 1.0).scores
    result = datapruner.prune([new, *rows], "ppl", 1.0, home=home, **options)
    assert result.run.measured == 1
    assert result.scores["ppl"][1:].to_list() == before["ppl"][:6].to_list()


# The same bytes again


class Listener:
    """Notes the stages and how far each came."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.done: dict[str, int] = {}
        self.notes: list[str] = []

    def stage(self, name: str, total: int | None, unit: str) -> None:
        self.stages.append((name, total))

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        self.done[self.stages[-1][0]] = done

    def measured(self, rows: int, tokens: int) -> None:
        self.done["tokens"] = tokens

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def second_home(
    tmp_path_factory: pytest.TempPathFactory, corpus_file: Path, options: dict[str, Any]
) -> tuple[Path, Result, Listener]:
    """Another home, in which the corpus was measured anew."""
    home, listener = tmp_path_factory.mktemp("second-home"), Listener()
    result = datapruner.prune(corpus_file, "qtuning", 0.5, home=home, progress=listener, **options)
    return home, result, listener


def test_two_fresh_homes_give_the_same_bytes(
    first_run: Result, second_home: tuple[Path, Result, Listener], tmp_path: Path
) -> None:
    first_run.export(tmp_path / "a.parquet")
    second_home[1].export(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert (tmp_path / "a.run.json").read_bytes() == (tmp_path / "b.run.json").read_bytes()
    assert first_run.run.run_id == second_home[1].run.run_id


@pytest.mark.parametrize(
    ("method", "amount", "given"),
    [
        (
            "qtuning",
            {"keep": 0.3},
            {"token_keep": 0.7, "options": {"scope": "batch", "batch_size": 8, "shuffle": True}},
        ),
        ("donod", {"keep_tokens": 100}, {"options": {"don_sign": 1}}),
        ("random", {"keep": 7}, {"seed": 3}),
    ],
)
def test_the_run_file_replays_to_the_same_bytes_in_another_home(
    prune: Prune,
    second_home: tuple[Path, Result, Listener],
    tmp_path: Path,
    method: str,
    amount: dict[str, Any],
    given: dict[str, Any],
) -> None:
    prune(method, **amount, **given).export(tmp_path / "a.parquet")
    again = datapruner.replay(tmp_path / "a.run.json", home=second_home[0], device="cpu")
    again.export(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_only_another_seed_draws_another_random_subset(prune: Prune) -> None:
    kept = [prune("random", 0.4, seed=seed).masks["row"].to_list() for seed in (0, 0, 1)]
    assert kept[0] == kept[1] != kept[2]
    assert prune("donod", 0.4, seed=1).masks.equals(prune("donod", 0.4, seed=2).masks)


def test_rows_from_python_are_replayed_when_they_are_given_again(
    prune: Prune, home: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    prune("ppl", 0.5)
    rows = [line for line in tiny_model.LINES if isinstance(line, dict)]
    datapruner.prune(iter(rows), "ppl", 0.5, home=home, **options).export(tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"a.run.json does not name a source.*give the source"):
        datapruner.replay(tmp_path / "a.run.json", home=home, device="cpu")
    datapruner.replay(tmp_path / "a.run.json", rows, home=home, device="cpu").export(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_files_with_the_same_chats_and_other_columns_do_not_take_each_others_place(
    prune: Prune, home: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    prune("ppl", 0.5)
    rows = [line for line in tiny_model.LINES[:8] if isinstance(line, dict)]
    labelled = [{**row, "grade": row["id"] * 10} for row in rows]
    plain, other = (datapruner.prune(each, "ppl", 1.0, home=home, **options) for each in (rows, labelled))
    assert "grade" not in plain.subset.column_names
    assert other.subset["grade"] == [row["grade"] for row in labelled]
    assert plain.subset["input_ids"] == other.subset["input_ids"]


# Sources and other ways to ask


def test_a_dataset_a_table_and_standard_input_give_what_the_file_gives(
    prune: Prune, home: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for row in tiny_model.LINES[:20] if isinstance(row, dict)]
    expected = prune("ppl", 1.0).scores["ppl"][:20].to_list()
    text = "".join(tiny_model.text_of(row) + "\n" for row in rows).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    for source in (datasets.Dataset.from_list(rows), pa.Table.from_pylist(rows), pl.DataFrame(rows), "-"):
        result = datapruner.prune(source, "ppl", 1.0, home=home, **options)
        assert (result.run.measured, result.run.config.source) == (0, None)
        assert result.scores["ppl"].to_list() == expected
        assert result.subset["output"] == [row["output"] for row in rows]


def test_columns_with_other_names_are_read_through_a_mapping(
    home: Path, prune: Prune, options: dict[str, Any]
) -> None:
    expected = prune("ppl", 1.0).scores
    rows = [{"q": line["instruction"], "a": line["output"]} for line in tiny_model.LINES[:5]]  # type: ignore[index]
    mapping = {"prompt": "q", "response": "a"}
    result = datapruner.prune(rows, "ppl", 1.0, mapping=mapping, home=home, **options)
    assert (result.run.measured, result.report.shapes) == (0, {"mapped": 5})
    assert result.scores["ppl"].to_list() == expected["ppl"][:5].to_list()


def test_scoring_prunes_nothing_and_has_the_columns_of_every_method(
    prune: Prune,
    corpus_file: Path,
    home: Path,
    options: dict[str, Any],
    compared: Callable[..., dict[str, Any]],
) -> None:
    pruned = {name: prune(name, 0.5).scores for name in METHODS}
    result = datapruner.score(corpus_file, METHODS, home=home, **options, **compared(*METHODS))
    assert status_counts(result) == {
        "scored": len(tiny_model.MEASURED) + 2,
        "rejected": len(tiny_model.REJECTED),
        "error": len(tiny_model.TOO_LONG),
    }
    assert result.report.kept == len(tiny_model.MEASURED) + 2
    assert (result.report.pruned, result.report.kept_tokens) == (0, 0)
    assert result.scores["keep"].is_null().all()
    # what only a selection knows
    beside = {"n_kept_tokens", "quadrant", "bin", "group", "keep", "reason", "status"}
    beside |= {"cluster", "semdedup", "divprune_pick", "divprune_distance", "taken_at"}
    for name in METHODS:
        own = [c for c in pruned[name].columns if c not in beside and not pruned[name][c].is_null().all()]
        assert result.scores.select(own).equals(pruned[name].select(own))
    assert {"don", "nod", "donod", "random", "length", "nominal_quadrant"} <= set(result.scores.columns)


def test_the_tied_gradient_is_measured_only_when_a_method_asks_for_it(
    prune: Prune, strict_run: Result, fp64_model: tuple[Any, Any]
) -> None:
    assert strict_run.run.measured > 0
    assert "tied_grad_norm" not in prune("donod", 0.5).scores.columns
    ids, response = tiny_model.rendered(fp64_model[1], tiny_model.messages_of(tiny_model.LINES[5]))
    expected = reference.measure(fp64_model[0], Sample(np.array(ids), np.array(response)), tied=True)
    assert expected.tied_grad is not None
    assert strict_run.scores["tied_grad_norm"][5] == pytest.approx(expected.tied_grad.norm().item(), rel=2e-5)


def test_a_preset_brings_its_share_and_options_and_given_ones_win(prune: Prune) -> None:
    n = len(tiny_model.MEASURED)
    paper = prune(preset="paper-25x70")
    options = paper.run.config.methods[0].options
    assert (options["token_keep"], options["scope"]) == (0.7, "batch")
    assert n * 0.25 - 1 <= paper.report.kept < n * 0.5
    changed = prune(preset="paper-25x70", keep=0.75, token_keep=0.2)
    assert changed.report.kept >= n * 0.7
    assert changed.run.config.methods[0].options == options | {"token_keep": 0.2}


def test_progress_is_reported_in_stages_and_reaches_the_number_of_samples(
    second_home: tuple[Path, Result, Listener],
) -> None:
    _, result, listener = second_home
    assert [name for name, _ in listener.stages] == [
        "ingesting",
        "finding the proxy model",
        "measuring",
        "selecting",
        "writing",
    ]
    assert listener.notes[0].startswith("31 rows: 26 alpaca (instruction, input, output)")
    assert listener.notes[0].endswith("3 rejected")
    assert dict(listener.stages)["measuring"] == listener.done["measuring"] == result.run.measured


# The real proxy model and real data

QUESTIONS = {
    "What is the capital of France?": "The capital of France is Paris.",
    "Name the largest planet of the solar system.": "Jupiter is the largest planet of the solar system.",
    "How many legs does a spider have?": "A spider has eight legs.",
    "What colour is a ripe banana?": "A ripe banana is yellow.",
    "Who wrote Romeo and Juliet?": "Lamp seven river quickly beneath orange, for the.",
    "What do you call frozen water?": "Frozen water is called ice.",
}
REAL = [
    "alpaca/alpaca_52k.parquet",
    "math/gsm8k_model_solutions_labelled.parquet",
    "chat/sharegpt_3k.parquet",
]


def real_rows(name: str) -> list[dict[str, Any]]:
    """Twelve short rows of a file of real data, none where it is absent."""
    if not (DATA / name).exists():
        return []
    rows = pl.read_parquet(DATA / name, n_rows=600).to_dicts()
    return [row for row in rows if 60 < len(str(row)) < 500][:12]


@pytest.fixture(scope="module")
def real_home(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Where SmolLM2 has measured all rows of the tests below, in one go."""
    given = {"home": tmp_path_factory.mktemp("real-home"), "model": str(smollm2), "device": "cpu"}
    rows = [{"instruction": question, "output": answer} for question, answer in QUESTIONS.items()]
    datapruner.score([*rows, *(row for name in REAL for row in real_rows(name))], **given)
    return given


@pytest.mark.slow
def test_smollm2_finds_the_answer_that_makes_no_sense(real_home: dict[str, Any]) -> None:
    rows = [{"instruction": question, "output": answer} for question, answer in QUESTIONS.items()]
    result = datapruner.prune(rows, "ppl", 5, **real_home)
    assert result.scores.filter(~pl.col("keep"))["row"].to_list() == [4]
    assert result.scores["ppl"][4] > 20 * result.scores["ppl"].median()
    assert result.subset["output"] == [row["output"] for row in rows if "Lamp" not in row["output"]]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["qtuning", "donod"])
@pytest.mark.parametrize("name", REAL)
def test_real_rows_go_through_with_their_columns_unchanged(
    real_home: dict[str, Any], name: str, method: str
) -> None:
    if not (rows := real_rows(name)):
        pytest.skip(f"needs {DATA / name}")
    result = datapruner.prune(rows, method, 0.5, **real_home)
    assert (result.run.measured, result.report.ingested, result.report.errored) == (0, 12, 0)
    assert result.report.kept >= 5
    kept = result.subset.select_columns(list(rows[0])).to_list()
    assert kept == [rows[row] for row in result.masks["row"]]
    assert result.scores.filter(pl.col("status") != "rejected")["ppl"].is_finite().all()
