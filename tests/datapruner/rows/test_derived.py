"""Rows of JSON as columns: all that the rows hold is in them, and a missing key is null."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.corpora.corpus import Corpus
from datapruner.corpora.ingest import ingest
from datapruner.errors import InputError

PAIR = {"prompt": "p", "completion": "c"}


def columns_of(folder: Path, values: list[Any], *, lines: list[str] | None = None) -> pa.ChunkedArray:
    """The column `v` of rows that have these values there; a row for an Ellipsis has no `v`."""
    path = folder / "rows.jsonl"
    rows = [PAIR if value is ... else {**PAIR, "v": value} for value in values]
    path.write_text("\n".join(lines or map(json.dumps, rows)), encoding="utf-8")
    ingest(path, out=folder / "c.duckdb")
    with Corpus(folder / "c.duckdb") as corpus:
        table = pa.Table.from_batches(corpus.originals())
    pq.write_table(table, folder / "out.parquet")
    return pq.read_table(folder / "out.parquet")["v"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[{"a": 1}, {"a": 2, "b": 3}]], [[{"a": 1, "b": None}, {"a": 2, "b": 3}]]),
        ([{"a": 1}, {"b": "x"}, ..., None], [{"a": 1, "b": None}, {"a": None, "b": "x"}, None, None]),
        (
            [{"a": {"x": [{"k": 1}]}}, {"a": {"y": {"z": True}}}, {"a": {}}],
            [
                {"a": {"x": [{"k": 1}], "y": None}},
                {"a": {"x": None, "y": {"z": True}}},
                {"a": {"x": None, "y": None}},
            ],
        ),
        ([{"A": 1, "a": "x"}, {"a": "y"}], [{"A": 1, "a": "x"}, {"A": None, "a": "y"}]),
        ([{"": 1}, {}], [{"": 1}, {"": None}]),
        ([[], [None], [{"a": 1}]], [[], [None], [{"a": 1}]]),
        ([[], ...], [[], None]),
    ],
)
def test_a_key_that_an_object_lacks_is_null(tmp_path: Path, values: list[Any], expected: list[Any]) -> None:
    assert columns_of(tmp_path, values).to_pylist() == expected


def test_raw_tool_calls_of_many_kinds_share_their_columns(tmp_path: Path) -> None:
    def call(name: str, arguments: Any, **more: Any) -> dict[str, Any]:
        message = {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}
        return {"messages": [{"role": "user", "content": "q"}, {**message, **more}]}

    rows = [call("a", {"city": "Rome"}), call("b", {"n": 2, "deep": {"x": None}}, content="c", weight=1)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ingest(tmp_path / "in.jsonl", out=tmp_path / "c.duckdb")
    with Corpus(tmp_path / "c.duckdb") as corpus:
        (first, second) = pa.Table.from_batches(corpus.originals())["messages"].to_pylist()
        assert [json.loads(line) for line in corpus.originals_json()] == rows
    asked = [each[1]["tool_calls"][0]["function"]["arguments"] for each in (first, second)]
    assert asked == [
        {"city": "Rome", "n": None, "deep": None},
        {"city": None, "n": 2, "deep": {"x": None}},
    ]
    assert (first[1]["weight"], second[1]["weight"], second[1]["content"]) == (None, 1, "c")


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([2**63, 1], pa.uint64(), [2**63, 1]),
        ([-(2**63), 2**63 - 1], pa.int64(), [-(2**63), 2**63 - 1]),
        ([2**63, -1], pa.string(), [str(2**63), "-1"]),
        ([10**30, 1], pa.string(), [str(10**30), "1"]),
        ([0.5, 2**53 + 1], pa.string(), ["0.5", str(2**53 + 1)]),
        ([0.5, 2**53], pa.float64(), [0.5, 2.0**53]),
        (["12345678901234567890", "a"], pa.string(), ["12345678901234567890", "a"]),
        ([{"n": [10**30, 1]}], pa.struct([("n", pa.list_(pa.string()))]), [{"n": [str(10**30), "1"]}]),
    ],
)
def test_whole_numbers_keep_every_digit(
    tmp_path: Path, values: list[Any], kind: pa.DataType, expected: list[Any]
) -> None:
    found = columns_of(tmp_path, values)
    if not pa.types.is_nested(kind):
        assert found.type == kind
    assert found.to_pylist() == expected


@pytest.mark.parametrize(
    "values",
    [
        [1, "one", [1], {"a": 1}, None, True],
        [{"a": 1}, "text"],
        [{f"key{number}": number} for number in range(300)],
        [{}],
        [[{"a": [1, "x"]}, {"a": {"big": 10**25}}]],
    ],
)
def test_values_that_share_no_type_are_their_json(tmp_path: Path, values: list[Any]) -> None:
    def read(value: Any) -> Any:
        if isinstance(value, list):
            return list(map(read, value))
        if isinstance(value, dict):
            return {name: read(each) for name, each in value.items()}
        return json.loads(value) if isinstance(value, str) else value

    assert read(columns_of(tmp_path, values).to_pylist()) == values


def test_a_row_that_is_nested_too_deeply_for_columns_is_told_and_comes_out_as_it_came(tmp_path: Path) -> None:
    line = json.dumps({**PAIR, "v": 0}).replace("0", "[" * 800 + "]" * 800)
    with pytest.raises(InputError, match=r"nest|recursion"):
        columns_of(tmp_path, [], lines=[line])
    with Corpus(tmp_path / "c.duckdb") as corpus:
        assert list(corpus.originals_json()) == [line.encode()]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=3) | st.floats(-9, 9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("aAb", max_size=2), inner, max_size=3)
    ),
    max_leaves=12,
)


def holds(column: Any, value: Any) -> bool:
    """Whether what came out is what went in: with nulls for missing keys, or as its JSON."""
    if isinstance(column, str) and not (isinstance(value, str) and column == value):
        return bool(json.loads(column) == value)
    if isinstance(value, dict):
        return set(value) <= set(column) and all(holds(column[key], value.get(key)) for key in column)
    if isinstance(value, list):
        return len(column) == len(value) and all(map(holds, column, value))
    return bool(column == value)


@settings(max_examples=60)
@given(st.lists(json_values, min_size=1, max_size=5))
def test_nothing_is_lost_whatever_the_rows_hold(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any]
) -> None:
    found = columns_of(tmp_path_factory.mktemp("c"), values).to_pylist()
    assert all(map(holds, found, values)), (found, values)
