"""The command line in this process, and a home in which it pruned a few short rows, once for all tests."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from datapruner import cli
from tests.command_line import ROWS, SETTINGS, PrunedHome, Said, installed


@pytest.fixture(scope="session")
def pruned_home(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> PrunedHome:
    """Measured and pruned once; tests only read it, or add runs that need no measuring."""
    folder = tmp_path_factory.mktemp("pruned")
    home, rows, subset = folder / "home", folder / "rows.jsonl", folder / "subset.parquet"
    home.mkdir()
    (home / "models").symlink_to(smollm2.parent)
    rows.write_text("\n".join(ROWS) + "\n", encoding="utf-8")
    done = installed(["prune", str(rows), "--keep", "0.5", "--out", str(subset), "--json", *SETTINGS], home)
    assert done.returncode == 0, done.stderr
    return PrunedHome(home, rows, subset, json.loads(done.stdout))


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Said]:
    """Run the command line in this process: `command("prune", path, home=...)`.

    Its output is a file; with `terminal`, one of 80 columns without colours.
    """
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def run(*arguments: object, home: Path | None = None, terminal: bool = False) -> Said:
        monkeypatch.setenv("DATAPRUNER_HOME", str(home or tmp_path / "home"))
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys.stdout, "isatty", lambda: terminal)
            code = cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run
