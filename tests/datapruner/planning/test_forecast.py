"""Forecasts of runs against what the runs then did."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import datapruner
from datapruner import beforehand
from datapruner.corpora.corpus import Corpus
from datapruner.errors import UsageError
from datapruner.measuring.cluster.executor import Cluster
from datapruner.measuring.measure import Machine
from datapruner.planning import passes
from datapruner.result import Result
from datapruner.runs import forecasts, published
from datapruner.schemas.plans import Plan
from datapruner.teacher.settings import load
from scorers.conversations.chat import ChatRenderer, Encoded
from tests.tiny_encoder import save_tiny_encoder
from tests.tiny_model import LINES, POSITIONS

Planner = Callable[..., Plan]


@pytest.fixture(scope="module")
def planned(
    corpus_file: Path, options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Plan, Result]:
    """The forecast of a run in a new home, and the run."""
    home = tmp_path_factory.mktemp("planned")
    wishes: dict[str, Any] = {"gpus": "8xH100", "price_per_gpu_hour": 2.5, "train_model_size": "7B"}
    plan = datapruner.plan(corpus_file, "qtuning", 0.5, home=home, epochs=3, **wishes, **options)
    return plan, datapruner.prune(corpus_file, "qtuning", 0.5, home=home, **options)


def test_tokens_are_those_of_the_tokenizer(planned: tuple[Plan, Result], tiny_folder: Path) -> None:
    plan, result = planned
    renderer = ChatRenderer(AutoTokenizer.from_pretrained(tiny_folder), max_length=POSITIONS)
    with Corpus(published.corpus_path(result.run, result.home)) as corpus:
        rendered = [
            each
            for batch in corpus.conversations()
            for each in renderer.render([conversation for _, _, conversation in batch])
        ]
    lengths = [len(each.input_ids) for each in rendered if isinstance(each, Encoded)]
    assert plan.tokens.exact
    assert plan.tokens.value == sum(lengths)
    assert plan.kept_rows is not None
    assert plan.kept_tokens is not None
    longest = sorted(lengths)[-int(plan.kept_rows.value) :]
    assert plan.kept_tokens.high == pytest.approx(sum(longest), rel=0.02)  # of rows without tokens: one each


def test_rows_are_those_of_the_run(planned: tuple[Plan, Result]) -> None:
    plan, result = planned
    report = result.report
    assert plan.ingested == report.ingested == plan.samples + plan.duplicates + plan.rejected
    assert (plan.duplicates, plan.rejected) == (report.duplicates, report.rejected)
    assert plan.kept_rows is not None
    assert plan.kept_rows.holds(report.kept + report.errored // 2)


def test_the_pass_reads_what_the_run_measured(planned: tuple[Plan, Result]) -> None:
    plan, result = planned
    [only] = plan.passes
    assert (only.what, only.reads, only.cached) == ("measuring", "forward", 0)
    assert only.missing == result.run.measured
    assert only.flops == 2 * (only.parameters or 0) * plan.tokens.value


def test_hours_of_other_devices_are_said_not_to_be_measured(planned: tuple[Plan, Result]) -> None:
    plan, _ = planned
    here, there = plan.devices[:2]
    assert plan.seconds is not None
    assert (here.measured, here.hours.value) == (True, plan.seconds.value / 3600)
    assert not there.measured
    assert there.said.startswith("not measured: 30 % of the published 989 TFLOP/s")
    assert there.hours.value == pytest.approx(plan.passes[0].flops / (8 * 989e12 * 0.3) / 3600)
    assert there.money is not None
    assert there.money.value == pytest.approx(there.hours.value * 8 * 2.5)


def test_the_break_even_is_of_the_tokens_that_were_counted(planned: tuple[Plan, Result]) -> None:
    found = planned[0].break_even
    assert found is not None
    assert found.training_on_all == pytest.approx(6 * 7e9 * 3 * planned[0].tokens.value)
    assert found.scoring == planned[0].passes[0].flops


def test_the_run_says_how_far_its_forecast_was_off(planned: tuple[Plan, Result]) -> None:
    plan, result = planned
    settled = result.forecast
    assert settled is not None
    assert settled.plan == plan.id
    by_what = {each.what: each for each in settled.outcomes}
    assert by_what["tokens"].measured == plan.tokens.value
    assert by_what["tokens"].error == 0
    assert by_what["tokens of rows kept"].held
    shards = (result.home / "signals").glob("*/*.parquet")
    assert by_what["signals on disk"].measured == sum(path.stat().st_size for path in shards)
    assert plan.seconds is not None
    took = by_what["measuring"]
    assert took.error == pytest.approx((took.measured - plan.seconds.value) / plan.seconds.value)
    assert took.held == (plan.seconds.low <= took.measured <= plan.seconds.high)


def test_the_report_of_the_run_has_it_as_numbers_and_on_its_page(
    planned: tuple[Plan, Result], tmp_path: Path
) -> None:
    _, result = planned
    page = tmp_path / "report.html"
    said = datapruner.report(result, page)
    assert said.forecast == result.forecast
    assert "<caption>Forecast at " in page.read_text(encoding="utf-8")


def test_a_forecast_after_the_run_finds_everything_measured(
    planned: tuple[Plan, Result], corpus_file: Path, options: dict[str, Any]
) -> None:
    plan, result = planned
    again = datapruner.plan(corpus_file, "qtuning", 0.5, home=result.home, gpus="8xH100", **options)
    assert again.id == plan.id
    assert again.passes[0].missing == 0
    assert again.probe is None
    assert again.seconds is not None
    assert again.seconds.value == 0
    assert again.tokens.value == plan.tokens.value
    # a larger model has nothing measured, and nothing was timed that its hours here could be told by
    here, there = ([each for each in made.devices if each.model == "7B"] for made in (again, plan))
    assert [each.device for each in here] == ["H100"]
    assert here[0].hours == there[1].hours
    shards = (result.home / "signals").glob("*/*.parquet")
    assert again.cached_bytes == again.signals_bytes.value == sum(path.stat().st_size for path in shards)


def test_a_run_that_compares_is_told_pass_by_pass(
    tmp_path: Path, options: dict[str, Any], compared: Callable[..., dict[str, Any]]
) -> None:
    """The proxy, the second model and the target set, each with the samples that the run then measures."""
    methods = ["rho", "target-cosine"]
    given = options | compared(*methods) | {"home": tmp_path}
    plan = datapruner.plan(LINES[:6], methods, **given)
    result = datapruner.score(LINES[:6], methods, **given)
    views = {"measuring", "reference", "target"}
    assert {each.what for each in plan.passes} == views
    assert sum(each.missing for each in plan.passes) == result.run.measured
    assert {"measuring", *result.run.lineage["views"]} == views
    elsewhere = Machine(("cpu",), cluster=Cluster())
    settled = forecasts.settle(result.run, tmp_path, 1.0, elsewhere)
    assert settled is not None
    assert settled.notes == ["seconds are not compared: forecast on cpu, done on a Ray cluster"]
    assert "measuring" not in {each.what for each in settled.outcomes}


def test_other_models_than_the_proxy_have_passes_of_their_own(
    tmp_path: Path, options: dict[str, Any], reward_folder: Path
) -> None:
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    save_tiny_encoder(encoder)
    methods = ["divprune", "reward"]
    asked: dict[str, Any] = {"options": {"divprune": {"embedding": "sentence_embedding"}}, "home": tmp_path}
    asked |= options | {"embedder": str(encoder), "reward_model": str(reward_folder)}
    plan = datapruner.plan(LINES[:6], methods, gpus="H100", **asked)
    others = plan.passes[1:]
    assert [(each.what, each.reads, each.missing) for each in others] == [
        ("embedding", "forward", 6),
        ("rewarding", "forward", 6),
    ]
    assert all(each.seconds is not None and each.seconds.value > 0 for each in others)
    assert any(note.endswith("its tokens are not counted: embedding, rewarding") for note in plan.notes)
    datapruner.score(LINES[:6], methods, **asked)
    again = datapruner.plan(LINES[:6], methods, **asked)
    assert [each.missing for each in again.passes] == [0, 0, 0]
    assert again.seconds is not None
    assert again.seconds.value == 0


def test_what_a_teacher_is_asked_is_counted_and_priced_where_one_is_named(
    corpus_file: Path, home: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "BASE_URL": "http://127.0.0.1:9/v1",
        "MODEL": "m",
        "PROMPT_PRICE": "1",
        "COMPLETION_PRICE": "2",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"DATAPRUNER_TEACHER_{name}", value)
    monkeypatch.setenv("DATAPRUNER_HOME", str(home))
    found = datapruner.plan(corpus_file, "judge", 0.5, home=home, **options).asks
    assert found is not None
    assert found.requests == found.questions > 0
    assert found.cost == pytest.approx((found.prompt_tokens + 2 * found.completion_tokens) / 1e6)


def test_a_method_that_asks_the_model_nothing_has_its_tokens_counted(
    tmp_path: Path, corpus_file: Path, options: dict[str, Any]
) -> None:
    plan = datapruner.plan(corpus_file, "random", 0.5, home=tmp_path, train_model_size="1B", **options)
    [only] = plan.passes
    assert (only.what, only.reads, only.flops) == ("tokenising", "tokens", 0)
    assert plan.devices == []
    assert plan.break_even is not None
    assert plan.break_even.scoring == 0


def test_tokens_of_more_rows_are_estimated_within_the_interval(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "COUNTED_ROWS", 48)
    lines = [{"instruction": f"Count to {n}.", "output": "one two " * (1 + n * n % 23)} for n in range(150)]
    counted = datapruner.plan(lines, "random", 0.5, home=tmp_path, **options)
    monkeypatch.undo()
    exact = datapruner.plan(lines, "random", 0.5, home=tmp_path, **options)
    assert not counted.tokens.exact
    assert exact.tokens.exact
    assert counted.tokens.holds(exact.tokens.value)
    assert counted.tokens.high - counted.tokens.low < 0.1 * exact.tokens.value


def test_rows_that_the_model_reads_the_beginning_of_count_as_long_as_that(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """However much longer they are: what is told of all rows by those that were tried is by tokens read."""
    lines = [
        {"instruction": f"Count from {n}.", "output": f"{n} and {n + 1}. " * (1 + n**2)} for n in range(40)
    ]
    asked: dict[str, Any] = {"max_length": 48, "token_budget": 48, "home": tmp_path, **options}
    plan = datapruner.plan(lines, "qtuning", 0.5, **asked)
    assert plan.probe is not None
    assert plan.probe.rows < 40
    settled = datapruner.prune(lines, "qtuning", 0.5, **asked).forecast
    assert settled is not None
    [size] = [each for each in settled.outcomes if each.what == "signals on disk"]
    assert size.held
    assert abs(size.error or 0) < 0.05


def test_a_recipe_is_forecast_as_the_run_that_it_says(
    planned: tuple[Plan, Result], corpus_file: Path, tmp_path: Path, tiny_folder: Path
) -> None:
    """What it does besides is said not to be known, and no part of which forecast it is when it is none of
    the run."""
    plan, result = planned
    recipe = tmp_path / "recipe.yaml"
    asked = f"data: {corpus_file}\nmethods: qtuning\nkeep: 0.5\nmeasuring: {{model: {tiny_folder}}}\n"
    recipe.write_text(f"{asked}engine: ray\nevaluate: {{held_out: {{own: {corpus_file}}}}}\n")
    same = datapruner.plan(recipe=recipe, home=result.home, device="cpu")
    assert same.id == plan.id
    assert same.passes[0].missing == 0
    for said in ("rows are tried on this machine, not on the Ray cluster", "evaluating is not forecast"):
        assert any(note.startswith(said) for note in same.notes)

    recipe.write_text(f"{asked}gate: {{}}\ndedup: {{}}\ncalibrate: {{batches: 2, size: 4, held_out: 4}}\n")
    other = datapruner.plan(LINES[:6], recipe=recipe, home=result.home, device="cpu")
    assert other.id != plan.id
    assert other.ingested == 6
    assert any(note.startswith("what a stage drops (gate, dedup) is not known") for note in other.notes)
    assert any("read up to 12 samples once more" in note for note in other.notes)
    with pytest.raises(UsageError, match="a recipe says all of the run") as caught:
        datapruner.plan(recipe=recipe, keep=0.25, home=result.home)
    assert caught.value.field == "recipe"


def test_what_a_recipe_has_rewritten_is_asked_of_the_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATAPRUNER_TEACHER_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("DATAPRUNER_TEACHER_MODEL", "m")
    rows, recipe = tmp_path / "rows.jsonl", tmp_path / "recipe.yaml"
    thoughts = ("Six by seven. That is 42.", "Add three and four. Seven.", "")
    lines = [
        {"prompt": f"{n}?", "response": f"<think>{text}</think>It is."} for n, text in enumerate(thoughts)
    ]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe.write_text("data: rows.jsonl\nrewrite: {method: dap}\n")
    plan = datapruner.plan(recipe=recipe, home=tmp_path / "home")
    asked = beforehand.estimate_rewrite(rows, "dap", teacher=load(), home=tmp_path / "home")
    assert plan.asks is not None
    assert plan.asks.questions == asked.questions > 0
    assert plan.asks.prompt_tokens == asked.prompt_tokens
    assert plan.passes == []
    assert any(note.startswith("rewriting is not timed") for note in plan.notes)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"gpus": "4"}, "gpus"),
        ({"gpus": 4}, "gpus"),
        ({"utilisation": 1.5}, "utilisation"),
        ({"train_tokens_per_second": 5.0}, "train_model_size"),
        ({"price_per_gpu_hour": -1.0}, "price_per_gpu_hour"),
        ({"epochs": 0.0}, "epochs"),
    ],
)
def test_what_cannot_be_told_is_refused(
    corpus_file: Path, options: dict[str, Any], home: Path, given: dict[str, Any], field: str
) -> None:
    with pytest.raises(UsageError) as caught:
        datapruner.plan(corpus_file, "random", 0.5, home=home, **given, **options)
    assert caught.value.field == field


def test_a_forecast_is_kept_as_the_document_that_it_is(planned: tuple[Plan, Result]) -> None:
    plan, result = planned
    path = result.home / "plans" / f"{plan.id}.json"
    assert json.loads(path.read_text())["id"] == plan.id
