"""Samples over two columns: what is inside of a line or a box is what a loop over all samples finds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import duckdb
import pytest

import datapruner
from datapruner.errors import UsageError
from datapruner.reporting import looking
from datapruner.result import Result
from datapruner.runs.published import Run, corpus_path
from datapruner.schemas.planes import Look, Outline

ROWS: list[dict[str, Any]] = [
    {"instruction": f"Count to {n}", "output": " ".join(map(str, range(n % 31 + 1)))} for n in range(90)
]
STAR = [(0.0, 0.0), (40.0, 3.0), (10.0, 0.2), (60.0, 0.0), (5.0, 3.5)]


@pytest.fixture(scope="module")
def made(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A run, and the file of its corpus."""
    home = tmp_path_factory.mktemp("home")
    result: Result = datapruner.prune(
        [*ROWS, ROWS[0]], method="ppl", keep=0.4, model=str(tiny_folder), home=home, device="cpu"
    )
    return result.run, corpus_path(result.run, home)


def _samples(run: Run) -> list[tuple[int, float, float, str]]:
    with duckdb.connect(str(run.database), read_only=True) as connection:
        return connection.execute(
            "SELECT min(row), any_value(n_response_tokens), any_value(ppl), any_value(status) "
            "FROM sample_scores GROUP BY sample_id ORDER BY 1"
        ).fetchall()


def _inside(x: float, y: float) -> bool:
    crossed = False
    for (x0, y0), (x1, y1) in zip(STAR, [*STAR[1:], STAR[0]], strict=True):
        if (y0 <= y) != (y1 <= y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            crossed = not crossed
    return crossed


def test_every_sample_is_a_point_once(made: tuple[Run, Path]) -> None:
    view = looking.view(*made, Look(x="n_response_tokens", y="ppl"))
    assert view.points is not None
    assert view.names is not None
    expected = _samples(made[0])
    assert view.samples == len(expected) == 90
    assert view.points.row == [row for row, *_ in expected]
    assert view.points.x == [x for _, x, *_ in expected]
    assert view.points.y == pytest.approx([y for _, _, y, _ in expected], rel=1e-5)
    assert [view.names[int(each or 0)] for each in view.points.colour] == [status for *_, status in expected]
    assert view.y.cuts.keys() == {"ppl"}


def test_a_view_of_no_columns_begins_with_the_plane(made: tuple[Run, Path]) -> None:
    known = looking.columns(*made)
    assert looking.view(*made, Look()) == looking.view(*made, Look(x=known.x, y=known.y))


def test_a_line_that_crosses_itself_holds_what_a_loop_finds(made: tuple[Run, Path]) -> None:
    view = looking.view(*made, Look(x="n_response_tokens", y="ppl"))
    assert (view.x.scale, view.y.scale) == ("linear", "linear")
    low, high = view.y.low, view.y.high
    star = [(x, low + y / 3.5 * (high - low)) for x, y in STAR]
    outline = ";".join(f"{x:.6f},{y:.6f}" for x, y in star)
    found = looking.rows(*made, Outline(x="n_response_tokens", y="ppl", outline=outline, limit=500))
    expected = [
        (row, status) for row, x, y, status in _samples(made[0]) if _inside(x, (y - low) / (high - low) * 3.5)
    ]
    assert 5 < len(expected) < 85
    assert [(each.row, each.status) for each in found.rows] == expected
    assert found.samples == len(expected)
    assert found.kept == sum(status == "kept" for _, status in expected)
    assert found.rows[0].prompt == ROWS[found.rows[0].row]["instruction"]
    assert found.rows[0].response == ROWS[found.rows[0].row]["output"]


def test_pages_of_rows_are_all_rows(made: tuple[Run, Path]) -> None:
    seen: list[int] = []
    after = None
    while True:
        asked = Outline(x="entropy", y="ppl", x0=-1, limit=40, after=after)
        found = looking.rows(*made, asked)
        seen += [each.row for each in found.rows]
        after = found.next
        if after is None:
            break
    assert seen == list(range(90))


def test_many_samples_are_counted_in_cells(made: tuple[Run, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "MOST_POINTS", 10)
    asked = Look(x="n_response_tokens", y="ppl", x0=3, x1=20)
    view = looking.view(*made, asked)
    assert view.points is None
    assert view.cells is not None
    assert view.cells.kept is not None
    counted = [[0] * looking.ACROSS for _ in range(looking.UP)]
    kept = 0
    for _, x, y, status in _samples(made[0]):
        if 3 <= x <= 20:
            i = min(looking.ACROSS - 1, math.floor((x - 3) / (17 / looking.ACROSS)))
            j = min(looking.UP - 1, math.floor((y - view.y.low) / ((view.y.high - view.y.low) / looking.UP)))
            counted[j][i] += 1
            kept += status == "kept"
    assert view.cells.samples == counted
    assert sum(map(sum, view.cells.kept)) == kept


def test_columns_of_the_corpus_can_be_drawn_and_colour(made: tuple[Run, Path]) -> None:
    known = looking.columns(*made)
    assert (known.x, known.y) == ("entropy", "ppl")
    assert {"n_chars", "ppl"} <= known.numbers.keys()
    assert {"shape", "status"} <= known.names.keys()
    view = looking.view(*made, Look(x="n_chars", y="n_turns", colour="shape"))
    assert view.names == ["alpaca"]
    numbers = looking.view(*made, Look(x="n_chars", y="ppl", colour="entropy"))
    assert numbers.names is None
    assert numbers.points is not None
    assert all(isinstance(each, float) for each in numbers.points.colour)


@pytest.mark.parametrize("name", ["nothing", "reason", 'ppl"; DROP TABLE x; --', "status"])
def test_a_column_that_is_no_number_is_refused(made: tuple[Run, Path], name: str) -> None:
    with pytest.raises(UsageError, match="no column of numbers"):
        looking.view(*made, Look(x=name, y="ppl"))
