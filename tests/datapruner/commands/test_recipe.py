"""`datapruner recommend` and `datapruner run`: recipes from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datapruner import cli
from tests.tiny_model import LINES


@pytest.fixture
def recipe(tiny_folder: Path, corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe for the corpus of `tests.tiny_model.LINES`, in a home of its own."""
    monkeypatch.setenv("DATAPRUNER_HOME", str(tmp_path / "home"))
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"""\
data: {corpus_file}
measuring: {{model: {tiny_folder}}}
dedup: {{}}
methods: [ppl]
keep: 50%
export: {{plain: named.jsonl, scores: scores.csv}}
"""
    )
    return path


def test_a_recipe_is_written_and_shown_and_in_json_with_its_facts(
    corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATAPRUNER_HOME", str(tmp_path / "home"))
    path = tmp_path / "recipe.yaml"
    assert cli.main(["recommend", str(corpus_file), "--out", str(path)]) == 0
    text = path.read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    assert cli.main(["recommend", str(corpus_file), "--keep-tokens", "99", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["facts"]["rows"] == len(LINES)
    assert "tokens: 99" in said["recipe"]
    assert said["written"] is None


def test_a_recipe_runs_and_its_files_are_written(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subset = tmp_path / "subset.parquet"
    assert cli.main(["run", str(recipe), "--device", "cpu", "--out", str(subset), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["report"]["ingested"] == len(LINES)
    assert said["config"]["dedup"] == {"threshold": 0.7, "shingle": 3, "part": "all"}
    assert {what: about["rows"] for what, about in said["written"].items()} == {
        "subset": said["report"]["kept"],
        "plain rows": said["report"]["kept"],
        "scores": len(LINES),
    }
    for name in ("subset.parquet", "named.jsonl", "scores.csv", "scores.run.json"):
        assert (tmp_path / name).is_file()


def test_other_data_and_another_file_go_before_what_the_recipe_names(recipe: Path, tmp_path: Path) -> None:
    rows = tmp_path / "few.jsonl"
    rows.write_text("".join(json.dumps(line) + "\n" for line in LINES[:6]))
    arguments = ["run", str(recipe), str(rows), "--plain", str(tmp_path / "mine.jsonl"), "--quiet"]
    assert cli.main([*arguments, "--device", "cpu"]) == 0
    assert len((tmp_path / "mine.jsonl").read_text().splitlines()) == 3
    assert not (tmp_path / "named.jsonl").exists()


def test_what_is_wrong_with_a_recipe_ends_the_command_with_its_line(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text(recipe.read_text().replace("keep: 50%", "kep: 50%"))
    assert cli.main(["run", str(recipe)]) == 2
    assert (
        f"error: {recipe}:5:1: kep: there is no such setting (did you mean keep?" in capsys.readouterr().err
    )
