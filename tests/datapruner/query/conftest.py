"""A run to ask, and the process that forks those that answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from datapruner.query.nursery import Nursery


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's DuckDB file: two tables, and a view over one of them."""
    path = tmp_path_factory.mktemp("published") / "run.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "CREATE TABLE sample_scores AS"
            " SELECT 's' || range AS id, range / 2 AS score, range % 3 AS part FROM range(6000)"
        )
        connection.execute("CREATE TABLE token_lists AS SELECT 's1' AS id, [1.5::FLOAT, 2.5] AS nll")
        connection.execute("CREATE VIEW token_scores AS SELECT id, unnest(nll) AS nll FROM token_lists")
    return path


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery
