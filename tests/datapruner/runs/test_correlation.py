"""Rank correlation, as the field computes it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import scipy.stats

from datapruner.runs.correlation import spearman


def test_rank_correlation_is_that_of_the_field() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 40, 500).astype(float)
    second = first + rng.normal(0, 20, 500).round()
    found = spearman(pl.DataFrame({"first": first, "second": second}))
    assert found == pytest.approx(scipy.stats.spearmanr(first, second).statistic, abs=1e-12)
