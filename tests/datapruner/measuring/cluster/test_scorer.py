"""What an actor says of a load, asked without a cluster."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from datapruner.errors import ModelError, UsageError, WorkerError
from datapruner.measuring.cluster import executor, loads
from datapruner.measuring.cluster.scorer import Board, Scorer
from datapruner.measuring.workers import local
from datapruner.measuring.workers.spec import WorkerSpec
from datapruner.system.space import NoSpaceError

STAND_IN = str(Path(__file__).parents[1] / "workers" / "stand_in.py")


class NearBoard:
    """A board that is no actor."""

    def __init__(self) -> None:
        self.board = Board()
        self.tell = self

    def remote(self, *told: Any) -> None:
        self.board.tell(*told)


def said(
    folder: Path, mode: str = "", *, model: str = "", ours: str = "", load: Any = (0, 2), **more: Any
) -> Any:
    """What came of the tasks "a" and "FAIL". `more`: fields of the specification."""
    tasks = folder / "tasks"
    tasks.mkdir(exist_ok=True)
    samples = [
        {"id": text, "turns": [["assistant", text, None]], "tools": None} for text in ("a", "FAIL", "b")
    ]
    loads.write(tasks, [local.Task([sample], folder) for sample in samples], lambda: None)
    spec = WorkerSpec(
        model or str(folder), "revision", "float32", None, "truncate", "all", False, "cpu", None, 1
    )
    board = NearBoard()
    wanted = asdict(spec) | more
    scorer = Scorer(str(tasks), wanted, [STAND_IN, mode], ours or version("datapruner"), board)
    try:
        found = scorer(pa.table({"load": [7], "first": [load[0]], "stop": [load[1]]})).to_pylist()
    finally:
        scorer._idle.close()
    [row] = found
    assert row["load"] == 7
    return json.loads(row["said"]), board.board


def test_a_load_is_measured_and_what_failed_is_told(tmp_path: Path) -> None:
    told, board = said(tmp_path)
    assert told == {"failed": [["FAIL", "out of memory"]], "rows": 2, "tokens": 5}
    assert len(list(tmp_path.glob("*.parquet"))) == 1
    assert board.read([])[2] == {""}
    assert board.read([7]) == (0, 0, {""})
    board.tell("", 7, 9, 9)  # which comes late
    assert board.read([]) == (0, 0, {""})


def test_a_board_adds_up_what_the_latest_attempts_at_open_loads_have_told() -> None:
    board = Board()
    board.tell("a", 1, 4, 40)
    board.tell("a", 2, 1, 10)
    board.tell("b", 1, 2, 20)  # begun again on another node
    assert board.read([]) == (3, 30, {"a", "b"})
    assert board.read([2]) == (2, 20, {"a", "b"})


def test_what_an_attempt_before_has_done_is_not_done_again(tmp_path: Path) -> None:
    assert said(tmp_path, load=(0, 1))[0] == {"failed": [], "rows": 1, "tokens": 1}
    assert said(tmp_path, "die", load=(0, 1))[0] == {"failed": [], "rows": 1, "tokens": 0}
    assert said(tmp_path, load=(0, 3))[0] == {"failed": [["FAIL", "out of memory"]], "rows": 3, "tokens": 5}


@pytest.mark.parametrize(
    ("mode", "kind", "message"),
    [
        ("refuse", ModelError, "this model cannot be used"),
        ("broken", NoSpaceError, "cannot write: No space left on device"),
        ("die", WorkerError, "cannot start measuring on cpu: the measuring process ended with exit code 9"),
    ],
)
def test_what_goes_wrong_arrives_as_the_error_that_it_is_here(
    tmp_path: Path, mode: str, kind: type[Exception], message: str
) -> None:
    told, _ = said(tmp_path, mode)
    error = executor._raised(told)
    assert type(error) is kind
    assert str(error).startswith(message)


def test_a_node_that_does_not_see_the_files_or_has_another_version_is_named(tmp_path: Path) -> None:
    told, _ = said(tmp_path, model="/no/such/model")
    assert "of the Ray cluster does not see /no/such/model" in told["message"]
    assert "every node mounts" in told["remedy"]
    other = tmp_path / "other"
    other.mkdir()
    told, _ = said(other, ours="9.9", of_that_version=True)
    assert told["message"].endswith(f"has datapruner {version('datapruner')}, not 9.9")
    assert isinstance(executor._raised(told), UsageError)
