"""Which rows a run has rated, where it filters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datapruner import library
from datapruner.request.keep import Keep
from datapruner.request.settings import Asked, assembled
from datapruner.result import Result
from tests.datapruner.client.unruly import Unruly, unruly_server
from tests.datapruner.judging.judges import rates, teacher

ROWS = [
    {"instruction": f"Question {at}?", "output": " ".join(["word"] * (1 + at % 3)) + f" {at}"}
    for at in range(9)
]


@pytest.mark.parametrize(
    ("condition", "questions", "kept"),
    [
        ("n_chars > 25", 3, [8]),  # rows 2, 5 and 8: only they are rated
        ("JUDGE > 2.5", 9, [8]),  # rows 6, 7 and 8, which nobody knows before all are rated
    ],
)
def test_only_what_the_filter_leaves_is_rated_unless_it_reads_ratings(
    tmp_path: Path,
    home: Path,
    options: dict[str, Any],
    condition: str | None,
    questions: int,
    kept: list[int],
) -> None:
    result, server = _run(tmp_path, home, options, condition)
    assert len(server.seen) == questions
    assert result.scores.filter(keep=True)["row"].to_list() == kept
    assert result.scores["judge"].drop_nulls().len() == questions
    assert result.report.ingested == result.report.kept + result.report.pruned == len(ROWS)


def _run(tmp_path: Path, home: Path, options: dict[str, Any], condition: str | None) -> tuple[Result, Unruly]:
    measuring = {name: value for name, value in options.items() if name != "device"}
    config = assembled(
        [Asked(name="judge", options={"rubric": "alpagasus"})],
        Keep(count=1),
        measuring=measuring,
        filter=condition,
    )
    with unruly_server() as server:
        server.will(rates(lambda material: float(material.split("\n</assistant")[0].split()[-1]) / 2))
        asking = teacher(server, tmp_path / "a.sqlite")
        return library.run(config, ROWS, device="cpu", home=home, teacher=asking), server
