"""A panic of a native library is contained like any failure, wherever a user's data can meet it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import datapruner
from datapruner import library
from datapruner.corpora.ingest import ingest
from datapruner.errors import WorkerError
from datapruner.system.panics import contained
from tests.command_line import Said
from tests.panicking import panic


def rows() -> Iterator[dict[str, Any]]:
    yield {"prompt": "p", "completion": "c"}
    panic()


def test_a_panic_is_an_error_that_says_what_panicked() -> None:
    with pytest.raises(WorkerError, match=r"a native library panicked: \S+.*\(please report it"), contained():
        panic()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), ValueError("x")])
def test_what_is_no_panic_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, contained():
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "call",
    [
        lambda home: datapruner.prune(rows(), "random", 0.5, home=home),
        lambda home: datapruner.score(rows(), home=home),
        lambda home: datapruner.rewrite(rows(), home=home, max_tokens=5),
        lambda home: datapruner.deduplicate(rows(), home=home),
        lambda home: datapruner.decontaminate(rows(), {"set": [{"q": "x"}]}, home=home),
    ],
)
def test_a_call_of_the_library_raises_an_error_of_ours(tmp_path: Path, call: Any) -> None:
    with pytest.raises(datapruner.DataprunerError, match="a native library panicked"):
        call(tmp_path)


def test_reading_leaves_no_trace_of_rows_at_which_something_panicked(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="a native library panicked"):
        ingest(rows(), out=tmp_path / "c.duckdb")
    assert list(tmp_path.iterdir()) == []


def test_a_command_ends_with_one_line(
    command: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "p", "completion": "c"}')
    monkeypatch.setattr(library, "run", lambda *_, **__: panic())
    answer = command("prune", tmp_path / "rows.jsonl", "--keep", "0.5")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("error: a native library panicked: ")
    assert answer.err.count("\n") == 1
