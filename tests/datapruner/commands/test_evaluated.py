"""Runs that were evaluated, as `runs` and `compare` show them, and by a recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

import datapruner
from datapruner.commands import verdicts
from datapruner.reporting import markdown
from datapruner.result import Result
from datapruner.runs import evaluations
from datapruner.schemas.evaluations import Evaluation
from tests.command_line import Said
from tests.evaluations import evaluation
from tests.pipeline import Prune

Command = Callable[..., Said]


@pytest.fixture(scope="module")
def evaluated(prune: Prune) -> Result:
    """A run with a verdict of today and one of before."""
    made = prune("length", 0.35)
    evaluations.write(made.run.folder, evaluation(run=made.run.run_id))
    worse = evaluation().overall[0].model_copy(update={"verdict": "worse"})
    earlier = evaluation().created_at.replace(year=2025)
    evaluations.write(
        made.run.folder,
        evaluation(id="ab" * 8, run=made.run.run_id, created_at=earlier, verdict="worse", overall=[worse]),
    )
    return made


def test_runs_have_the_last_verdict_in_a_column(
    command: Command, evaluated: Result, first_run: Result, home: Path
) -> None:
    listed = {each["run"]: each for each in command("runs", "--json", "--limit", 500, home=home).json["runs"]}
    assert listed[evaluated.run.run_id]["verdict"] == "better"
    assert listed[first_run.run.run_id]["verdict"] is None
    lines = command("runs", "--limit", 500, home=home).out.splitlines()
    assert lines[0].split()[-1] == "verdict"
    [line] = [line for line in lines if line.startswith(evaluated.run.run_id)]
    assert line.split()[-1] == "better"


def test_a_comparison_says_how_either_run_was_evaluated(
    command: Command, evaluated: Result, first_run: Result, home: Path
) -> None:
    both = (first_run.run.run_id, evaluated.run.run_id)
    told = command("compare", *both, "--json", home=home).json["evaluations"]
    assert [(each["run"], each["verdict"]) for each in told] == [(evaluated.run.run_id, "better")]
    shown = " ".join(command("compare", *both, home=home).out.split())
    assert f"The second, as it was evaluated: {evaluation().said}" in shown
    assert "The first, as it was" not in shown


def test_an_evaluation_that_compared_nothing_has_no_table_of_differences() -> None:
    def shown(found: Evaluation) -> list[str]:
        tables = (each for each in verdicts.sections(found) if isinstance(each, Table))
        return [str(table.title) for table in tables]

    assert any("Subset less control" in title for title in shown(evaluation()))
    found = shown(evaluation(overall=[], verdict=None))
    assert found
    assert not any("Subset less control" in title for title in found)


def test_a_recipe_evaluates_its_run(
    command: Command,
    first_run: Result,
    corpus_file: Path,
    home: Path,
    options: dict[str, Any],
    tmp_path: Path,
) -> None:
    (tmp_path / "held.jsonl").write_text(
        "".join(f'{{"prompt": "Name {n}.", "response": "It is {n}."}}\n' for n in range(6))
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"data: {corpus_file}\nmeasuring: {{model: {options['model']}}}\nmethod: random\nkeep: 40%\n"
        "evaluate: {held_out: {numbers: held.jsonl}, tuning: full, seeds: 1}\nexport: {plain: kept.jsonl}\n"
    )
    said = command("run", recipe, "--device", "cpu", "--json", home=home)
    assert said.code == 0, said.err
    [found] = said.json["evaluations"]
    assert (found["run"], found["verdict"]) == (said.json["run"], "no difference")
    card = tmp_path / "kept.card" / "README.md"
    assert markdown.text(found["said"], 2000) in card.read_text()
    card.unlink()
    made = datapruner.run_recipe(recipe, device="cpu", home=home)  # which finds its trainings done
    assert markdown.text(found["said"], 2000) in card.read_text()
    [stored] = evaluations.of(made.run.folder)
    assert (stored.id, stored.said) == (found["id"], found["said"])
    shown = " ".join(command("run", recipe, "--device", "cpu", home=home).out.split())
    assert found["said"] in shown
