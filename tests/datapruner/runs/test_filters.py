"""A filter is one boolean expression over a sample's columns, and nothing else can come of its text."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from datapruner.errors import UsageError
from datapruner.query.pool import SandboxPool
from datapruner.runs import filters

SAMPLES = pl.DataFrame(
    {
        "ppl": [1.0, 20.0, None, float("nan"), float("inf")],
        "n_turns": [1, 2, 3, 4, 5],
        "shape": ["a", "b", "a", "b", "a"],
    }
)
KINDS = {"ppl": pa.float64(), "n_turns": pa.int64(), "shape": pa.string()}


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    with SandboxPool(2, 2) as processes:
        yield processes


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("ppl < 30", [True, True, False, False, False]),
        ("PPL < 30 AND n_turns > 1", [False, True, False, False, False]),
        ("ppl IS NULL", [False, False, True, False, False]),
        ("shape IN ('a', 'c') OR shape LIKE 'b%'", [True] * 5),
        ("CASE WHEN n_turns BETWEEN 2 AND 3 THEN true END", [False, True, True, False, False]),
        ("isnan(ppl) -- what cannot be measured", [False, False, False, True, False]),
    ],
)
def test_what_it_is_true_for_passes(pool: SandboxPool, expression: str, expected: list[bool]) -> None:
    assert filters.passing(expression, SAMPLES, pool.run).tolist() == expected


def test_what_goes_wrong_with_a_value_is_told(pool: SandboxPool) -> None:
    with pytest.raises(UsageError, match="the filter: Conversion Error"):
        filters.passing("shape::INTEGER < 3", SAMPLES, pool.run)


def test_many_samples_keep_their_order(pool: SandboxPool) -> None:
    numbers = np.arange(50_000) * 7919 % 50_000
    found = filters.passing("number % 3 = 0", pl.DataFrame({"number": numbers}), pool.run)
    np.testing.assert_array_equal(found, numbers % 3 == 0)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("ppl <", "syntax error"),
        ("-- nothing", "not one expression"),
        ("ppl", "it gives DOUBLE, not true or false"),
        ("abs(shape) < 3", "Binder Error"),
        ("perplexity < 3", "no column 'perplexity' .*it can read ppl, n_turns, shape"),
        ("samples.ppl < 3", "no column 'samples.ppl'"),
        ("random() < 0.5", r"random\(\) cannot be part of it"),
        ("now() > '2020-01-01'", r"now\(\) cannot be part"),
        ("avg(ppl) < 3", r"avg\(\) cannot be part"),
        ("ppl < (SELECT 3)", "a subquery cannot be part"),
        ("row_number() OVER () < 3", "a window function cannot be part"),
        ("columns('p.*') < 3", "a star cannot be part"),
        ("$1", "a parameter cannot be part"),
        ("true), (true", "more than one expression|not one expression"),
        ("true) FROM samples WHERE (true", "more than one expression"),
        ("true) UNION SELECT (true", "more than one expression"),
        ("true); DROP TABLE samples; SELECT (true", "Only SELECT"),
        ("true); SELECT (true", "more than one expression"),
        ("getenv('HOME') = '/'", "Catalog Error"),
        ("read_text('/etc/passwd') = ''", "cannot be part"),
        ("/*", "unterminated"),
    ],
)
def test_what_is_no_boolean_expression_is_refused(pool: SandboxPool, expression: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        filters.check(expression, KINDS, ask=pool.run)
    assert caught.value.field == "filter"


def test_a_column_that_there_is_not_is_refused(pool: SandboxPool) -> None:
    with pytest.raises(UsageError, match="no column 'surprise'"):
        filters.check("surprise > 3", KINDS, ask=pool.run)
