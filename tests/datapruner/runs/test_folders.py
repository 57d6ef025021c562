"""Finding runs in a home folder without reading their configurations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from datapruner.errors import InputError
from datapruner.runs import folders


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '"text"', "3", '{"run": "x"}'])
def test_a_file_that_is_no_run_file_is_an_input_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json: not a run file: .* \(give the \.run\.json"):
        folders.read_document(tmp_path / "run.json")


def test_a_run_file_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a run file: .*No such file"):
        folders.read_document(tmp_path / "run.json")


def test_a_run_is_found_though_its_configuration_cannot_be_read(tmp_path: Path) -> None:
    made = {}
    for number, name in enumerate(("older", "newer")):
        folder = made[name] = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(
            json.dumps({"run": name, "config": "of another version", "lineage": {"corpus": "c1"}})
        )
        os.utime(folder / "run.json", (number, number))
    assert folders.latest(tmp_path) == made["newer"]
    assert folders.find("old", tmp_path) == made["older"]
    lineage = folders.read_document(made["older"] / "run.json")["lineage"]
    assert folders.corpus(lineage, tmp_path) == tmp_path / "corpora" / "c1.duckdb"


def test_finding_a_run_imports_no_library() -> None:
    script = "import sys, datapruner.runs.folders; print({'pydantic', 'numpy', 'polars'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_folders_whose_names_differ_behind_a_dot_have_run_files_of_their_own(tmp_path: Path) -> None:
    for name in ("rows-0.25", "rows-0.5"):
        (tmp_path / name).mkdir()
        assert folders.beside(tmp_path / name) == tmp_path / f"{name}.run.json"
    assert folders.beside(tmp_path / "rows.parquet") == tmp_path / "rows.run.json"
