"""Two runs' scores against each other: every sample is counted in the cell that a loop puts it in."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from datapruner.errors import UsageError
from datapruner.reporting.against import CELLS, against
from datapruner.result import Result
from datapruner.runs.comparison import Compared
from datapruner.schemas.against import AgainstAxis
from tests.pipeline import Prune


def of(result: Result) -> Compared:
    return Compared(result.run.run_id, result.run.database, result.report.scores)


def _cell(axis: AgainstAxis, value: float) -> int:
    """By its edges, the last of which belongs to the cell before it."""
    return min(int(np.searchsorted(axis.edges, value, side="right")) - 1, CELLS - 1)


def test_every_sample_with_both_scores_is_counted_in_its_cell(prune: Prune) -> None:
    first, second = prune("donod", 0.5), prune("ifd", 0.5)
    found = against(of(first), of(second), "donod", "ifd")
    mine, theirs = (
        each.scores.unique("sample_id", keep="first").select("sample_id", pl.col(name).cast(pl.Float64))
        for each, name in ((first, "donod"), (second, "ifd"))
    )
    both = mine.join(theirs, on="sample_id").drop_nulls().drop_nans()
    expected = np.zeros((CELLS, CELLS), int)
    for _, x, y in both.iter_rows():
        expected[_cell(found.y, y), _cell(found.x, x)] += 1
    assert len(both) > 10
    assert (
        np.abs(np.array(found.samples) - expected).sum() <= 2
    )  # one that lies on an edge, to the last digit
    assert (found.x.column, found.y.column) == ("donod", "ifd")


def test_a_run_against_itself_is_a_diagonal(prune: Prune) -> None:
    run = of(prune("donod", 0.5))
    counted = np.array(against(run, run, "ppl", "ppl").samples)
    assert counted.sum() == np.trace(counted) > 10


@pytest.mark.parametrize(("x", "y", "field"), [("nothing", "ppl", "x"), ("ppl", 'ppl"; --', "y")])
def test_a_score_that_a_run_has_not_is_refused_by_name(prune: Prune, x: str, y: str, field: str) -> None:
    run = of(prune("donod", 0.5))
    with pytest.raises(UsageError, match="has no score") as refused:
        against(run, run, x, y)
    assert refused.value.field == field
