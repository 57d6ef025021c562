"""Every benchmark runs to its end on a few rows, and every figure that it prints is a ratio."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from benchmarks import figures, gpu
from benchmarks.processes import ROOT
from benchmarks.sizes import SCRIPTS
from tests.browser import CHROMIUM
from tests.forked import Forked, module
from tests.served import Server

HELPERS = {
    "figures",
    "peer_programs",
    "processes",
    "rows",
    "runs",
    "sizes",
    "synthetic",
}
RUNNERS = {"__main__", "gpu"}
IN_FOLDER = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - HELPERS - RUNNERS


@pytest.fixture(scope="module")
def model(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, which here reads as long sequences as real ones do."""
    folder = tmp_path_factory.mktemp("benchmarks") / "model"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    return folder


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up reasoning, in a folder of its own."""
    folder = tmp_path_factory.mktemp("traces")
    steps = [
        f"Step {n}: first we add {n} to what was there before, and so we have {3 * n}." for n in range(12)
    ]
    rows = [
        {"question": f"What is {n}?", "thinking": "\n\n".join(steps[n:]), "answer": str(n)} for n in range(4)
    ]
    pl.DataFrame(rows).write_parquet(folder / "traces.parquet")
    return folder


def test_every_script_in_the_folder_has_its_sizes() -> None:
    assert set(SCRIPTS) == IN_FOLDER, "see the head of benchmarks/sizes.py for what to add"


@pytest.mark.parametrize("small", [False, True])
def test_whatever_longer_runs_are_given_is_tried_on_a_few_rows(small: bool) -> None:
    longer = {script: (sizes.bench or "").split() for script, sizes in SCRIPTS.items()}
    for job in gpu.jobs("cuda", None, small):
        longer[job.script] += job.arguments
    for script, arguments in longer.items():
        options = {word for word in arguments if word.startswith("--")}
        assert options <= set(SCRIPTS[script].tiny.split()), script


@pytest.fixture
def quickly_alone(tmp_path: Path) -> Callable[..., Any]:
    """`processes.alone`, but that its process is forked from one that has imported the libraries."""
    numbers = itertools.count()

    def alone(script: str, *arguments: str) -> Any:
        out, errors = (tmp_path / f"alone-{next(numbers)}.{end}" for end in ("out", "errors"))
        started = Forked(
            module, f"benchmarks.{script}", arguments, environment=os.environ, said=out, errors=errors
        )
        assert started.wait() == 0, errors.read_text()
        return json.loads(out.read_text().splitlines()[-1])

    return alone


@pytest.mark.parametrize("script", sorted(IN_FOLDER))
def test_prints_ratios_on_a_few_rows(
    script: str,
    request: pytest.FixtureRequest,
    model: Path,
    traces: Path,
    smollm2: Path,
    quickly_alone: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if script == "pages" and CHROMIUM is None:
        pytest.skip("no chromium to look at pages with")
    (tmp_path / "models").symlink_to(smollm2.parent)
    monkeypatch.setenv("DATAPRUNER_HOME", str(tmp_path))
    monkeypatch.setenv(figures.FILE, str(tmp_path / "figures.jsonl"))
    given = {"model": str(model), "folder": str(traces)}
    if "{url}" in SCRIPTS[script].tiny:
        server: Server = request.getfixturevalue("server")
        given |= {"url": server.url, "token": server.token, "model": server.model}
    arguments = [word.format(**given) for word in SCRIPTS[script].tiny.split()]
    imported = importlib.import_module(f"benchmarks.{script}")
    if hasattr(imported, "alone"):
        monkeypatch.setattr(imported, "alone", quickly_alone)
    imported.main(arguments)
    found = figures.read(tmp_path / "figures.jsonl")
    printed = capsys.readouterr().out
    assert found, printed
    for each in found:
        assert str(each) in printed
        assert math.isfinite(each.ratio), each
