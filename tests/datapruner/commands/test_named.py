"""Sets that are named one by one on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from datapruner.commands.named import named_sets, targets
from datapruner.errors import UsageError


def test_one_set_is_a_place_and_several_are_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert targets(None) is None
    assert targets(["a.jsonl"]) == "a.jsonl"
    assert targets(["maths=a.jsonl"]) == {"maths": "a.jsonl"}
    assert targets(["a.jsonl", "code=b.jsonl"]) == {"a": "a.jsonl", "code": "b.jsonl"}
    Path("x=1.jsonl").touch()
    assert targets(["x=1.jsonl"]) == "x=1.jsonl"
    assert targets(["x=1.jsonl", "b.jsonl"]) == {"x=1": "x=1.jsonl", "b": "b.jsonl"}


def test_a_folder_of_held_out_rows_is_called_as_it_is_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "questions").mkdir()
    monkeypatch.chdir(tmp_path / "questions")
    assert named_sets(["."], "--held-out") == {"questions": "."}
    assert named_sets([str(tmp_path / "questions")], "--held-out") == {
        "questions": str(tmp_path / "questions")
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a/test.jsonl", "b/test.jsonl"], "two sets are called test.*write --target NAME=DATA"),
        (["a=x.jsonl", "=y.jsonl"], "--target '=y.jsonl' is not NAME=DATA"),
        (["a=x.jsonl", "b="], "--target 'b=' is not NAME=DATA"),
    ],
)
def test_names_that_do_not_tell_sets_apart_are_refused(given: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        named_sets(given, "--target")
