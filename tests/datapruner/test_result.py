"""What a run gives, through Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

import datapruner
from datapruner.errors import UsageError
from datapruner.result import Result
from tests import tiny_model
from tests.pipeline import Prune


def test_what_a_run_gives_shows_itself_in_a_line(prune: Prune, first_run: Result) -> None:
    result = prune("ppl", 0.5)
    kept = f"{result.report.kept} of {len(tiny_model.LINES)} rows kept"
    assert repr(result) == f"Result({result.run.run_id[:12]}, ppl: {kept})"
    assert repr(result.run).startswith("Run(")
    assert repr(result.report).startswith(f"Report(ingested={len(tiny_model.LINES)}, kept=")
    assert max(map(len, (repr(first_run), repr(first_run.report)))) < 300


def test_a_run_that_pruned_nothing_has_scores_to_export_but_no_subset(
    prune: Prune, corpus_file: Path, home: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    prune("ppl", 0.5)
    result = datapruner.score(corpus_file, ["ppl"], home=home, **options)
    for ask in (
        lambda: result.subset,
        lambda: result.masks,
        lambda: result.export(tmp_path / "subset.parquet"),
        lambda: result.export(tmp_path / "subset.jsonl", plain=True),
    ):
        with pytest.raises(UsageError, match=r"scored and did not prune \(use its scores, or prune\)"):
            ask()
    assert list(tmp_path.iterdir()) == []
    assert result.export_scores(tmp_path / "scores.parquet") == len(tiny_model.LINES)
    unset = {"don", "nod", "donod", "quadrant"}  # the columns of other methods
    assert result.scores.select(unset).null_count().sum_horizontal().item() == 4 * len(result.scores)
    assert pl.read_parquet(tmp_path / "scores.parquet").equals(result.scores.drop(unset))
    assert len(result.token_scores) == result.scores["n_response_tokens"].gather(tiny_model.MEASURED).sum()
