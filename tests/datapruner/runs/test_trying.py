"""What runs would keep, tried: what they really keep once they are started, without measuring anything."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import datapruner
from datapruner.corpora.store import ingest_to
from datapruner.errors import ConflictError, ModelError, UsageError
from datapruner.measuring.measure import Machine
from datapruner.progress import Silent
from datapruner.request.config import MethodChoice, RunConfig
from datapruner.request.keep import Keep
from datapruner.request.parts import Dedup
from datapruner.runs.published import Run, corpus_path
from datapruner.runs.trying import Trial, UnmeasuredError

ROWS: list[dict[str, Any]] = [
    {"instruction": f"Count to {n}", "output": " ".join(map(str, range(n % 17 + 1)))} for n in range(40)
]
TOWARDS = [{"instruction": "Count to 3", "output": "0 1 2 3"}, {"instruction": "Hi", "output": "Hello."}]


def _run(home: Path, model: Path, keep: float, method: str, **more: Any) -> Run:
    made = datapruner.prune(
        [*ROWS, ROWS[0]], method=method, keep=keep, model=str(model), home=home, device="cpu", **more
    )
    return made.run


def _trial(run: Run, home: Path, **targets: Path) -> Trial:
    return Trial.of(run, corpus_path(run, home), targets, home, Machine(("cpu",)))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def test_a_ratio_gives_what_a_run_at_that_ratio_gives(tiny_folder: Path, home: Path) -> None:
    first = _run(home, tiny_folder, 0.5, "qtuning", options={"token_keep": 0.5})
    trial = _trial(first, home)
    for keep, token_keep in ((0.5, 0.5), (0.2, 0.5), (0.7, 0.9)):
        wanted = _run(home, tiny_folder, keep, "qtuning", options={"token_keep": token_keep})
        found = trial.at(keep, {"token_keep": token_keep})
        copies = wanted.report.duplicates
        assert found.samples == wanted.report.ingested - copies == 40
        assert found.kept == wanted.report.kept
        assert found.kept_tokens == wanted.report.kept_tokens
        assert found.thresholds == pytest.approx(wanted.report.thresholds)
        assert sum(found.quadrants.values()) == found.kept


def test_an_option_out_of_its_range_is_refused(tiny_folder: Path, home: Path) -> None:
    trial = _trial(_run(home, tiny_folder, 0.5, "qtuning"), home)
    with pytest.raises(UsageError, match="token_keep"):
        trial.at(0.5, {"token_keep": 2.0})


def test_a_method_towards_a_target_set_is_tried_too(tiny_folder: Path, home: Path) -> None:
    made = _run(home, tiny_folder, 0.25, "target-cosine", target=TOWARDS)
    aim = home / "corpora" / f"{made.lineage['target'][0]['corpus']}.duckdb"
    given = corpus_path(made, home), {"": aim}, home, Machine(("cpu",))
    for trial in (Trial.of(made, *given), Trial.before(made.config, *given)):
        found = trial.at(0.25, {})
        assert found.kept == made.report.kept
        assert found.thresholds == pytest.approx(made.report.thresholds)


def test_samples_that_a_filter_left_out_are_not_selected_from(
    tiny_folder: Path, home: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    about = {"measuring": {"model": str(tiny_folder)}, "methods": ["ppl"], "keep": "50%"}
    recipe.write_text(yaml.safe_dump({**about, "filter": "n_response_tokens > 10"}))
    made = datapruner.run_recipe(recipe, ROWS, home=home, device="cpu").run
    found = _trial(made, home).at(0.5, {})
    assert found.samples < 40
    assert found.kept == made.report.kept


def test_signals_that_are_gone_are_not_measured_anew(tiny_folder: Path, tmp_path: Path) -> None:
    made = _run(tmp_path, tiny_folder, 0.5, "ppl")
    shutil.rmtree(tmp_path / "signals")
    with pytest.raises(ConflictError, match="40 samples are not measured any more"):
        _trial(made, tmp_path)
    assert not (tmp_path / "signals").exists()


def test_a_run_that_only_scored_has_no_ratio(tiny_folder: Path, home: Path) -> None:
    scored = datapruner.score(ROWS, method="ppl", model=str(tiny_folder), home=home, device="cpu").run
    with pytest.raises(ConflictError, match="selects nothing"):
        _trial(scored, home)


def test_no_model_is_tuned_while_a_page_waits(tiny_folder: Path, home: Path) -> None:
    made = _run(home, tiny_folder, 0.5, "ppl")
    measuring = made.config.measuring.model_copy(update={"reference": "tuned"})
    compares = replace(made, config=made.config.model_copy(update={"measuring": measuring}))
    with pytest.raises(ConflictError, match="a model tuned for it"):
        _trial(compares, home)


def _not_started(run: Run, home: Path, method: str, keep: float) -> RunConfig:
    """A configuration as the run's, of another method and ratio."""
    methods, measuring = [MethodChoice(name=method)], run.config.measuring
    return run.config.model_copy(
        update={"methods": methods, "keep": Keep(share=keep), "measuring": measuring}
    )


def test_a_run_that_is_not_started_keeps_what_is_said_of_it(tiny_folder: Path, home: Path) -> None:
    first = _run(home, tiny_folder, 0.5, "qtuning")
    machine = Machine(("cpu",))
    for method, keep in (("el2n", 0.3), ("qtuning", 0.6), ("random", 0.5)):
        config = _not_started(first, home, method, keep)
        found = Trial.before(config, corpus_path(first, home), {}, home, machine).by(config)
        wanted = _run(home, tiny_folder, keep, method)
        assert wanted.measured == 0
        assert (found.samples, found.kept) == (40, wanted.report.kept)
        assert found.kept_tokens == wanted.report.kept_tokens


def test_what_is_not_measured_is_counted_and_stays_so(tiny_folder: Path, tmp_path: Path) -> None:
    half = datapruner.prune(ROWS[:15], method="ppl", keep=0.5, model=str(tiny_folder), home=tmp_path).run
    config = _not_started(half, tmp_path, "ppl", 0.5)
    corpus = ingest_to(ROWS, {}, tmp_path, Silent())
    shards = sorted((tmp_path / "signals").rglob("*.parquet"))
    with pytest.raises(UnmeasuredError) as refused:
        Trial.before(config, corpus, {}, tmp_path, Machine(("cpu",)))
    assert refused.value.samples == 25
    assert sorted((tmp_path / "signals").rglob("*.parquet")) == shards


def test_no_model_is_fetched_for_it(tiny_folder: Path, home: Path, tmp_path: Path) -> None:
    made = _run(home, tiny_folder, 0.5, "ppl")
    measuring = made.config.measuring.model_copy(update={"model": "smollm2-135m"})
    config = made.config.model_copy(update={"measuring": measuring})
    machine = Machine(("cpu",), models=tmp_path)
    with pytest.raises(ModelError, match="datapruner models pull smollm2-135m"):
        Trial.before(config, corpus_path(made, home), {}, home, machine)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", [{"dedup": Dedup()}, {"filter": "n_turns > 1"}])
def test_a_run_with_further_stages_is_not_foreseen(
    tiny_folder: Path, home: Path, stage: dict[str, Any]
) -> None:
    made = _run(home, tiny_folder, 0.5, "ppl")
    with pytest.raises(ConflictError, match="stages"):
        Trial.before(
            made.config.model_copy(update=stage), corpus_path(made, home), {}, home, Machine(("cpu",))
        )
