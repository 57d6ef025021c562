"""`storage` as it is typed: what it shows, and what `clean` says that it did."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import datapruner
from datapruner.catalog import migrations
from datapruner.catalog.database import Database
from datapruner.catalog.models import Project, Upload
from datapruner.cli import main
from datapruner.settings import load

FILES = "projects/prj_1/uploads"


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


def test_files_of_a_service_are_told_by_project_and_those_without_a_row_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATAPRUNER_HOME", str(tmp_path))
    migrations.upgrade(load().database)
    db = Database(load().database)
    with db.write() as session:
        session.add(Project(id="prj_1", name="ours"))
        session.flush()
        session.add(
            Upload(id="upl_1", project_id="prj_1", key=f"{FILES}/upl_1", name="a", bytes=4, sha256="")
        )
    db.close()
    kept, left, young = (tmp_path / "files" / FILES / name for name in ("upl_1", "upl_2", "upl_3"))
    for path in (kept, left, young):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"rows")
    for path in (kept, left):
        os.utime(path, (time.time() - 3 * 86_400,) * 2)
    shown = json.loads(said(capsys, "--service", "--json"))
    (uploads,) = shown["holdings"]
    counts = {name: uploads[name] for name in ("project", "kind", "files", "bytes", "unneeded_bytes")}
    assert counts == {"project": "ours", "kind": "uploads", "files": 3, "bytes": 12, "unneeded_bytes": 4}
    assert "ours" in said(capsys, "--service")
    assert "0 files" in said(capsys, "clean", "--service", "--dry-run")
    assert "1 file with 4 B would go" in said(capsys, "clean", "--service", "--older-than", "0h", "--dry-run")
    assert left.exists()
    gone = json.loads(said(capsys, "clean", "--service", "--older-than", "0h", "--json"))
    assert gone["deleted"] == [{"path": f"{FILES}/upl_2", "bytes": 4}]
    assert [path.exists() for path in (kept, left, young)] == [True, False, True]
