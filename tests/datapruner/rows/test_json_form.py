"""Arrow columns as JSON: the stated form of every type."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datapruner.errors import InputError
from datapruner.rows.json_form import IN_CORPUS, lines

MOMENT = dt.datetime(2024, 5, 6, 7, 8, 9, 123456)

FORMS: dict[str, tuple[pa.Array, Any]] = {
    "boolean": (pa.array([True]), True),
    "whole": (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1),
    "float": (pa.array([1.0]), 1.0),
    "float32": (pa.array([0.1], pa.float32()), 0.1),
    "half": (pa.array([0.5], pa.float16()), 0.5),
    "nan": (pa.array([math.nan]), "NaN"),
    "infinity": (pa.array([[math.inf, -math.inf]]), ["Infinity", "-Infinity"]),
    "half_nan": (pa.array([math.nan], pa.float16()), "NaN"),
    "text": (pa.array(['a"\\\n\x00é😀\u2028']), 'a"\\\n\x00é😀\u2028'),
    "view": (pa.array(["x"], pa.string_view()), "x"),
    "binary": (pa.array([b"\x00\xff"]), "AP8="),
    "large_binary": (pa.array([b"\x00\xff"], pa.large_binary()), "AP8="),
    "fixed_binary": (pa.array([b"abc"], pa.binary(3)), "YWJj"),
    "binary_view": (pa.array([b"abc"], pa.binary_view()), "YWJj"),
    "nested_binary": (pa.array([[{"b": b"abc"}, None]]), [{"b": "YWJj"}, None]),
    "decimal": (pa.array([decimal.Decimal("1.20")]), "1.20"),
    "wide": (pa.array([decimal.Decimal("-1.23")], pa.decimal256(76, 2)), "-1.23"),
    "date": (pa.array([dt.date(2024, 1, 2)]), "2024-01-02"),
    "moment": (pa.array([MOMENT]), "2024-05-06T07:08:09.123456"),
    "zoned": (pa.array([MOMENT], pa.timestamp("us", "Europe/Berlin")), "2024-05-06T09:08:09.123456+02:00"),
    "time": (pa.array([dt.time(1, 2, 3)], pa.time32("s")), "01:02:03"),
    "duration": (pa.array([-1500], pa.duration("ms")), "PT-1.5S"),
    "interval": (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "P1M2DT0.000000003S"),
    "map": (
        pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64())),
        [{"key": "k", "value": 1}, {"key": "k", "value": 2}],
    ),
    "dictionary": (pa.array([b"abc"]).dictionary_encode(), "YWJj"),
    "runs": (pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array(["a"])), "a"),
    "extension": (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8())), 1),
    "struct": (pa.array([{"a": None, "b": [1]}]), {"a": None, "b": [1]}),
    "no_fields": (pa.array([{}], pa.struct([])), {}),
    "list_view": (pa.array([["x"]], pa.list_view(pa.string())), ["x"]),
    "fixed_list": (pa.array([[1, 2]], pa.list_(pa.int8(), 2)), [1, 2]),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_type_has_its_form(name: str) -> None:
    array, value = FORMS[name]
    batch = pa.record_batch({"v": array, "w": pa.nulls(1, array.type) if name != "runs" else pa.nulls(1)})
    assert [json.loads(line) for line in lines(batch, "rows")] == [{"v": value, "w": None}]


def test_slices_and_nulls_inside_of_lists_stay_where_they_are() -> None:
    kinds = (pa.list_, pa.large_list, pa.list_view, pa.large_list_view)
    rows = [[1], None, [], [2, None], [3]]
    for kind in kinds:
        batch = pa.record_batch({"v": pa.array(rows, kind(pa.int64()))}).slice(1, 3)
        assert [json.loads(line)["v"] for line in lines(batch, "rows")] == rows[1:4]


def test_rows_that_a_corpus_keeps_have_words_for_what_is_no_number() -> None:
    batch = pa.record_batch({"v": [math.nan, math.inf, -math.inf]})
    assert lines(batch, "rows", IN_CORPUS) == [b'{"v":NaN}', b'{"v":Infinity}', b'{"v":-Infinity}']


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]), "sparse_union"),
        (pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), "two fields of one name"),
    ],
)
def test_a_type_without_a_form_is_told_with_its_column(array: pa.Array, why: str) -> None:
    with pytest.raises(InputError, match=f"rows: column 'bad' cannot be written as JSON: .*{why}.*drop the"):
        lines(pa.record_batch({"good": [1], "bad": array}), "rows")


@pytest.mark.parametrize("name", ["chat/sharegpt_3k.parquet", "math/gsm8k_test.parquet"])
def test_real_rows_are_as_they_were(name: str) -> None:
    path = Path(__file__).parents[3].parent / "shared" / "data" / name
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    table = pq.read_table(path)
    found = [json.loads(line) for batch in table.to_batches() for line in lines(batch, name)]
    assert found == table.to_pylist()
