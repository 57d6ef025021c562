"""`storage` as it is typed: what it shows, and what `clean` says that it did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import datapruner
from datapruner.cli import main


@pytest.fixture
def home(tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a corpus and signals, and no run any more."""
    rows = [{"instruction": "What is it?", "output": f"It is {n}."} for n in range(2)]
    made = datapruner.score(rows, "ppl", home=tmp_path, **options)
    shutil.rmtree(made.run.folder)
    monkeypatch.setenv("DATAPRUNER_HOME", str(tmp_path))
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["storage", *words]) == code
    found = capsys.readouterr()
    return found.out + found.err


def test_sizes_are_shown_and_what_no_run_needs_goes_when_told(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = json.loads(said(capsys, "--json"))
    assert [each["kind"] for each in shown["holdings"]] == ["corpora", "signals"]
    assert shown["unneeded_bytes"] == shown["bytes"] > 0
    assert "2 rows of" in said(capsys)
    assert "nothing that no run needs is older than 30d" in said(capsys, "clean")
    assert "would be freed" in said(capsys, "clean", "--older-than", "0h", "--dry-run")
    assert json.loads(said(capsys, "--json")) == shown
    gone = json.loads(said(capsys, "clean", "--older-than", "0h", "--json"))
    assert (gone["bytes"], gone["dry_run"], len(gone["deleted"])) == (shown["bytes"], False, 2)
    assert "nothing is in" in said(capsys)
    assert not list(home.rglob("*.parquet"))


def test_an_age_that_is_none_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--older-than '30' is no age" in said(capsys, "clean", "--older-than", "30", code=2)


def test_a_home_that_is_not_there_has_nothing_and_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATAPRUNER_HOME", str(tmp_path / "none"))
    assert "nothing is in" in said(capsys)
    assert "nothing that no run needs" in said(capsys, "clean")
    assert not (tmp_path / "none").exists()
