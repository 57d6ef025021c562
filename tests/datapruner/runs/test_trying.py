"""Another ratio, tried: what a run at that ratio really keeps, without measuring anything."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import datapruner
from datapruner.errors import ConflictError, UsageError
from datapruner.measuring.measure import Machine
from datapruner.runs.published import Run, corpus_path
from datapruner.runs.trying import Trial

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
    found = Trial.of(made, corpus_path(made, home), {"": aim}, home, Machine(("cpu",))).at(0.25, {})
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
