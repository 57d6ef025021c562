"""A folder of the user's that is called as one of ours is: no process that we start takes it for ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import installed
from tests.served import WAIT, serving
from tests.tiny_model import write_corpus

pytestmark = pytest.mark.slow
OURS = ("api", "scorers", "migrations")


def taken(folder: Path, *names: str) -> None:
    """Make packages in `folder` that leave a file where they are imported, and fail."""
    for name in names:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(
            f"from pathlib import Path\nPath({str(folder / 'imported')!r}).write_text(__name__)\n"
            "raise SystemExit(f'{__name__} is not ours')\n",
            encoding="utf-8",
        )


def test_in_a_folder_with_our_names_rows_are_pruned_here_and_by_the_service(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path / "rows.jsonl")
    taken(tmp_path, *OURS, "datapruner", "torch", "pip")
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    how = ("--method", "ppl", "--keep", "0.5", "--model", str(tiny_folder), "--out", "subset.parquet")
    for command in (("prune", "rows.jsonl", *how), ("sql", "select status from sample_scores")):
        done = installed(command, home)
        assert done.returncode == 0, done.stderr

    with serving(home, tiny_folder) as server, (tmp_path / "rows.jsonl").open("rb") as rows:
        asked = {"method": "ppl", "keep": "0.5", "name": "rows", "model": server.model}
        pruned = server.client.post("/v1/prune", data=asked, files={"file": rows}, headers=WAIT)
        assert (pruned.status_code, pruned.content[:4]) == (200, b"PAR1"), pruned.text
        sql = server.client.post("/v1/sql", json={"sql": "select count(*) from rows.sample_scores"})
        assert sql.status_code == 200, sql.text
    assert not (tmp_path / "imported").exists()


def test_python_m_datapruner_does_not_take_its_other_packages_from_there(tmp_path: Path) -> None:
    taken(tmp_path, *OURS)
    command = [sys.executable, "-m", "datapruner", "methods", "ppl"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "imported").exists()
