"""Evaluations beside a run."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from datapruner.errors import InputError
from datapruner.runs import evaluations
from tests.evaluations import evaluation


def test_evaluations_are_read_as_they_were_written_the_newest_first(tmp_path: Path) -> None:
    older = evaluation()
    newer = evaluation(id="aa" * 8, created_at=datetime(2026, 1, 3, tzinfo=UTC), verdict=None, cost=None)
    paths = [evaluations.write(tmp_path, each) for each in (newer, older)]
    assert [path.name for path in paths] == [f"{'aa' * 8}.json", "0123456789abcdef.json"]
    assert evaluations.of(tmp_path) == [newer, older]
    assert json.loads(paths[0].read_text())["verdict"] is None


def test_one_that_came_to_no_verdict_hides_none_that_did(tmp_path: Path) -> None:
    older, hasty = (
        evaluation(),
        evaluation(id="aa" * 8, created_at=datetime(2026, 1, 3, tzinfo=UTC), verdict=None, cost=None),
    )
    evaluations.write(tmp_path, hasty)
    assert evaluations.latest(tmp_path) == hasty
    evaluations.write(tmp_path, older)
    assert evaluations.latest(tmp_path) == older
    evaluations.require(tmp_path, "better")


def test_an_evaluation_with_the_same_id_replaces_the_one_before(tmp_path: Path) -> None:
    evaluations.write(tmp_path, evaluation(seconds=1.0))
    evaluations.write(tmp_path, evaluation(seconds=2.0))
    assert [each.seconds for each in evaluations.of(tmp_path)] == [2.0]


def test_a_run_that_was_not_evaluated_has_none(tmp_path: Path) -> None:
    assert evaluations.of(tmp_path) == []
    assert evaluations.latest(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"verdict": "splendid"}, "verdict: must be 'better', 'no difference' or 'worse'"),
        ({"secret": 1}, "secret: there is no such setting"),
        ({"seconds": "long"}, "seconds: must be a number"),
        ({"confidence": 2}, "confidence: must be under 1"),
    ],
)
def test_a_file_that_is_no_evaluation_is_an_input_error(
    tmp_path: Path, change: dict[str, object], why: str
) -> None:
    path = evaluations.write(tmp_path, evaluation())
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=rf"0123456789abcdef\.json: not an evaluation: {why}.*evaluate the"):
        evaluations.of(tmp_path)
