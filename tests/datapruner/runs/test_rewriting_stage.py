"""A recipe whose rewriting asks a teacher: what becomes of the rows that it drops, or fails on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

import datapruner
from datapruner.errors import UsageError
from datapruner.result import Result
from tests.datapruner.client.unruly import Behaviour, unruly_server
from tests.datapruner.rewriting.lessons import EASY, THINKING, judged
from tests.datapruner.teacher.scripted import fails, says

Run = Callable[..., Result]

LESSONS: list[dict[str, Any]] = [
    {
        "question": f"What is 3 * 4 + 2, {name}?",
        "thinking": THINKING,
        "answer": "It is \\boxed{14}.",
        "gold": gold,
    }
    for name, gold in (("Ann", "14"), ("Bob", "15"))
]
LESSONS.append({"question": "Why not?", "answer": "Because it is not so.", "gold": None})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Run:
    """Runs a recipe over the lessons with this rewriting, always in one home."""
    folder = tmp_path_factory.mktemp("taught")
    (folder / "lessons.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LESSONS))

    def run_it(**rewriting: Any) -> Result:
        measuring = {"model": str(tiny_folder)}
        fields = {"data": "lessons.jsonl", "measuring": measuring, "methods": ["ppl"], "keep": "100%"}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(fields | rewriting))
        return datapruner.run_recipe(folder / "recipe.yaml", home=folder / "home", device="cpu")

    return run_it


@pytest.fixture
def taught(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Behaviour], Result]:
    """That recipe, whose rewriting asks the teacher of the environment, which answers so."""

    def answered(behaviour: Behaviour) -> Result:
        with unruly_server() as server:
            server.will(behaviour)
            for name, value in {
                "HOME": tmp_path,
                "TEACHER_BASE_URL": f"{server.url}/v1",
                "TEACHER_MODEL": "m",
                "TEACHER_RETRIES": 0,
            }.items():
                monkeypatch.setenv(f"DATAPRUNER_{name}", str(value))
            options = {"retries": 0, "otherwise": "drop"}
            return run(rewrite={"method": "dap", "options": options, "answers": "gold"})

    return answered


def status_of(result: Result) -> dict[int, tuple[str, str]]:
    """Status and reason of every row."""
    return {
        row: (status, reason)
        for row, status, reason in result.scores.select("row", "status", "reason").rows()
    }


def test_a_row_that_rewriting_drops_is_pruned(taught: Callable[[Behaviour], Result]) -> None:
    result = taught(says(judged("easy", EASY)))
    rows = status_of(result)
    assert [status for status, _ in rows.values()] == ["kept", "pruned", "kept"]
    assert rows[1][1] == "dropped by rewriting: the final answer is another"
    assert result.report.stages["rewrite"]["dropped"] == 1
    assert result.scores["n_kept_tokens"].to_list()[1] == 0
    assert result.run.lineage["teacher"] == "m"
    assert result.subset["rewrite_status"] == ["rewritten", "original"]


def test_a_row_that_rewriting_fails_on_is_an_error(taught: Callable[[Behaviour], Result]) -> None:
    result = taught(fails(400, "too long"))
    rows, report = status_of(result), result.report
    assert [status for status, _ in rows.values()] == ["error", "error", "kept"]
    assert rows[0][1].startswith("rewriting: the teacher gave no usable answer: ")
    assert (report.kept, report.pruned, report.errored, report.ingested) == (1, 0, 2, 3)


def test_a_recipe_that_asks_a_teacher_needs_one_before_anything_is_measured(run: Run) -> None:
    with pytest.raises(UsageError, match="there is no teacher model"):
        run(rewrite={"method": "dap"})
