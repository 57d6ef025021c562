"""Forecasts of runs against what the runs then did."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import datapruner
from datapruner.corpora.corpus import Corpus
from datapruner.errors import UsageError
from datapruner.planning import passes
from datapruner.result import Result
from datapruner.runs import published
from datapruner.schemas.plans import Plan
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
    again = datapruner.plan(corpus_file, "qtuning", 0.5, home=result.home, **options)
    assert again.id == plan.id
    assert again.passes[0].missing == 0
    assert again.probe is None
    assert again.seconds is not None
    assert again.seconds.value == 0
    assert again.tokens.value == plan.tokens.value
    shards = (result.home / "signals").glob("*/*.parquet")
    assert again.cached_bytes == again.signals_bytes.value == sum(path.stat().st_size for path in shards)


def test_a_run_that_compares_is_told_pass_by_pass(
    tmp_path: Path, corpus_file: Path, options: dict[str, Any], compared: Callable[..., dict[str, Any]]
) -> None:
    """The proxy, the second model and the target set, each with the samples that the run then measures."""
    for method, views in (("rho", {"measuring", "reference"}), ("target-cosine", {"measuring", "target"})):
        given = options | compared(method)
        plan = datapruner.plan(corpus_file, method, 0.5, home=tmp_path, **given)
        result = datapruner.prune(corpus_file, method, 0.5, home=tmp_path, **given)
        assert {each.what for each in plan.passes} == views
        assert sum(each.missing for each in plan.passes) == result.run.measured
        assert {"measuring", *result.run.lineage["views"]} == views


def test_other_models_than_the_proxy_have_passes_of_their_own(
    tmp_path: Path, options: dict[str, Any], reward_folder: Path
) -> None:
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    save_tiny_encoder(encoder)
    rows = LINES[:6]
    by_text = {"options": {"embedding": "sentence_embedding"}, "embedder": str(encoder)}
    for method, given, what in (
        ("divprune", by_text, "embedding"),
        ("reward", {"reward_model": str(reward_folder)}, "rewarding"),
    ):
        asked = options | given | {"home": tmp_path / method}
        _, other = datapruner.plan(rows, method, 2, **asked).passes
        assert (other.what, other.reads, other.missing) == (what, "forward", 6)
        assert other.seconds is not None
        assert other.seconds.value > 0
        datapruner.prune(rows, method, 2, **asked)
        again = datapruner.plan(rows, method, 2, **asked)
        assert again.passes[1].missing == 0
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
    monkeypatch.setattr(passes, "COUNTED_ROWS", 64)
    lines = [{"instruction": f"Count to {n}.", "output": "one two " * (1 + n * n % 23)} for n in range(300)]
    counted = datapruner.plan(lines, "random", 0.5, home=tmp_path, **options)
    monkeypatch.undo()
    exact = datapruner.plan(lines, "random", 0.5, home=tmp_path, **options)
    assert not counted.tokens.exact
    assert exact.tokens.exact
    assert counted.tokens.holds(exact.tokens.value)
    assert counted.tokens.high - counted.tokens.low < 0.1 * exact.tokens.value


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"gpus": "4"}, "gpus"),
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
