"""Rows over any of their columns: what a loop over the rows counts, before and after."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

import datapruner
from datapruner.errors import UsageError
from datapruner.reporting import spread
from datapruner.runs.published import Run, corpus_path

TOPICS = ("history", "code", "<b>maths</b>")
ROWS: list[dict[str, Any]] = [
    {
        "instruction": f"Count to {n}",
        "output": " ".join(map(str, range(n % 7 + 1))),
        "about": {"topic": TOPICS[n % 3], "rating": n / 4},
        "tags": ["x"] * (n % 4),
        "year": 1990 + n % 5,
        "a.b": f"both {n % 2}",
        "ppl": f"p{n % 2}",
        "language": None if n % 5 else "en",
    }
    for n in range(40)
]


@pytest.fixture(scope="module", params=["JSON", "typed"])
def made(
    request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, Path]:
    """A run over rows whose columns are text of JSON, or typed; and the file of its corpus."""
    home = tmp_path_factory.mktemp("home")
    data: Any = ROWS
    if request.param == "typed":
        data = home / "rows.parquet"
        pl.DataFrame(ROWS).write_parquet(data)
    result = datapruner.prune(
        data, method="random", keep=0.4, model=str(tiny_folder), home=home, device="cpu"
    )
    return result.run, corpus_path(result.run, home)


def _kept(run: Run) -> set[int]:
    with duckdb.connect(str(run.database), read_only=True) as connection:
        rows = connection.execute("SELECT row FROM sample_scores WHERE status = 'kept'").fetchall()
    return {row for (row,) in rows}


def test_a_nested_name_is_counted_before_and_after(made: tuple[Run, Path]) -> None:
    found = spread.spread(*made, "about.topic")
    kept = _kept(made[0])
    before = Counter(row["about"]["topic"] for row in ROWS)
    after = Counter(row["about"]["topic"] for n, row in enumerate(ROWS) if n in kept)
    assert found.names is not None
    assert {each.value: (each.rows, each.kept) for each in found.names.values} == {
        name: (before[name], after[name]) for name in TOPICS
    }
    assert (found.missing, found.missing_kept, found.numbers) == (0, 0, None)


@pytest.mark.parametrize(
    ("column", "values", "whole"),
    [
        ("about.rating", [row["about"]["rating"] for row in ROWS], False),
        ("year", [row["year"] for row in ROWS], True),
        ("tags", [len(row["tags"]) for row in ROWS], True),
        ("n_turns", [2] * len(ROWS), True),
    ],
)
def test_numbers_are_drawn_by_size_and_lists_by_their_elements(
    made: tuple[Run, Path], column: str, values: list[float], whole: bool
) -> None:
    found = spread.spread(*made, column).numbers
    kept = sorted(_kept(made[0]))
    assert found is not None
    assert found.summary_before.mean == pytest.approx(sum(values) / len(values))
    assert found.summary_after is not None
    assert found.summary_after.mean == pytest.approx(sum(values[n] for n in kept) / len(kept))
    assert sum(found.before) == len(values) == 40
    assert sum(found.after or []) == len(kept) == 16
    assert not whole or all(edge % 1 == 0.5 for edge in found.edges)


def test_rows_without_a_value_are_counted_apart(made: tuple[Run, Path]) -> None:
    found = spread.spread(*made, "language")
    assert found.missing == 32
    assert found.missing_kept == sum(n % 5 > 0 for n in _kept(made[0]))
    assert found.names is not None
    assert [(each.value, each.rows) for each in found.names.values] == [("en", 8)]


def test_texts_of_which_most_are_different_are_drawn_by_their_length(
    made: tuple[Run, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread, "_TOLD_APART", 10)
    found = spread.spread(*made, "instruction")
    assert found.text == "characters of the text"
    assert found.numbers is not None
    assert found.numbers.summary_before.maximum == len("Count to 39")


def test_a_name_with_a_dot_and_one_that_a_score_has_are_found(made: tuple[Run, Path]) -> None:
    dotted = spread.spread(*made, "a.b").names
    assert dotted is not None
    assert {each.value: each.rows for each in dotted.values} == {"both 0": 20, "both 1": 20}
    taken = spread.spread(*made, "originals.ppl").names
    assert taken is not None
    assert {each.value for each in taken.values} == {"p0", "p1"}


def test_columns_to_choose_from_are_those_of_scores_corpus_and_rows(made: tuple[Run, Path]) -> None:
    offered = spread.columns(*made).columns
    wanted = {"n_response_tokens", "n_chars", "source", "about.topic", "about.rating", "a.b", "originals.ppl"}
    assert wanted <= offered.keys()
    assert "about" not in offered


@pytest.mark.parametrize(
    "column", ["nothing", "about", "about.nothing", "", "'; DROP TABLE x; --", "a/~b", "originals."]
)
def test_what_no_row_has_is_refused_by_name(made: tuple[Run, Path], column: str) -> None:
    with pytest.raises(UsageError) as refused:
        spread.spread(*made, column)
    assert refused.value.field == "column"
