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
from datapruner.rows import json_form
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
    "decimal": (pa.array([decimal.Decimal("1.20")]), 1.2),
    "wide": (pa.array([decimal.Decimal("-1.23")], pa.decimal256(76, 2)), -1.23),
    "date": (pa.array([dt.date(2024, 1, 2)]), "2024-01-02"),
    "moment": (pa.array([MOMENT]), "2024-05-06T07:08:09.123456"),
    "zoned": (pa.array([MOMENT], pa.timestamp("us", "Europe/Berlin")), "2024-05-06T09:08:09.123456+02:00"),
    "universal": (pa.array([MOMENT], pa.timestamp("ns", "UTC")), "2024-05-06T07:08:09.123456000Z"),
    "time": (pa.array([dt.time(1, 2, 3)], pa.time32("s")), "01:02:03"),
    "duration": (pa.array([-1500], pa.duration("ms")), "PT-1.5S"),
    "interval": (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "P1M2DT0.000000003S"),
    "map": (
        pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64())),
        [{"key": "k", "value": 1}, {"key": "k", "value": 2}],
    ),
    "union": (
        pa.UnionArray.from_sparse(pa.array([1], pa.int8()), [pa.array([1]), pa.array(["x"])], ["a", "b"]),
        "x",
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
    nothing = pa.nulls(1) if name in ("runs", "union") else pa.nulls(1, array.type)
    batch = pa.record_batch({"v": array, "w": nothing})
    assert [json.loads(line) for line in lines(batch, "rows")] == [{"v": value, "w": None}]


D = decimal.Decimal
NUMBERS = [
    (pa.array([2**63 - 1, -(2**63)]), ["9223372036854775807", "-9223372036854775808"]),
    (pa.array([D(2**127), D(-5)], pa.decimal256(39, 0)), [str(2**127), "-5"]),
    (pa.array([D("1.50"), D("12345678901234567890.12")]), ["1.50", "12345678901234567890.12"]),
    (pa.array([D(0), D("1E-10")], pa.decimal128(38, 10)), ["0.0000000000", "0.0000000001"]),
    (pa.array([D(1200), None], pa.decimal128(4, -2)), ["1.2E+3", "null"]),
    (pa.array([0.1, 1e300, 1.0, -0.0, 5e-324]), ["0.1", "1e+300", "1.0", "-0.0", "5e-324"]),
    (pa.array([0.1, 16777216.0], pa.float32()), ["0.1", "16777216.0"]),
]


@pytest.mark.parametrize(("array", "texts"), NUMBERS, ids=[str(array.type) for array, _ in NUMBERS])
def test_numbers_have_all_digits_and_floats_no_more_than_theirs(array: pa.Array, texts: list[str]) -> None:
    assert json_form.fragments(array).to_pylist() == texts
    number = float if pa.types.is_floating(array.type) else D
    read = [json.loads(text, parse_int=number, parse_float=number) for text in texts]
    assert pa.array(read, array.type) == array


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (2**31 - 1, pa.date32(), "infinity"),
        (1 - 2**31, pa.date32(), "-infinity"),
        (2**31 - 2, pa.date32(), "<value out of range: 2147483646>"),
        (-719893, pa.date32(), "-0001-01-01"),
        (2**63 - 1, pa.timestamp("us"), "infinity"),
        (1 - 2**63, pa.timestamp("s"), "-infinity"),
        (2**63 - 1, pa.timestamp("us", "UTC"), "infinity"),
        (2**63 - 1, pa.timestamp("us", "Europe/Berlin"), "infinity"),
        (2**62, pa.timestamp("us", "UTC"), "<value out of range: 4611686018427387904>"),
        (2**62, pa.timestamp("us", "Europe/Berlin"), "<value out of range: 4611686018427387904>"),
        (2**63 - 1, pa.timestamp("ns"), "2262-04-11T23:47:16.854775807"),
        (24 * 3600 * 10**6, pa.time64("us"), "24:00:00.000000"),
        (24 * 3600, pa.time32("s"), "24:00:00"),
    ],
)
def test_the_ends_of_time_are_told_apart(number: int, kind: pa.DataType, text: str) -> None:
    numbers = pa.array([number, None, 0], pa.int32() if kind.bit_width == 32 else pa.int64())
    said, nothing, start = json_form.fragments(numbers.view(kind)).to_pylist()
    assert (json.loads(said), nothing) == (text, "null")
    assert "infinity" not in start


def test_names_and_values_that_repeat_in_json_are_made_few_at_a_time() -> None:
    """Else a few KiB of columns would be GiB of JSON at once."""
    name = "x" * 40_000
    struct = pa.array([[{name: 1}] * 100] * 50)
    enum = pa.DictionaryArray.from_arrays(pa.array([0] * 50, pa.int8()), pa.array(["y" * 4_000_000]))
    batch = pa.record_batch({"struct": struct, "enum": enum})
    pieces = [columns[0] for columns in json_form.columns(batch, "rows")]
    assert sum(map(len, pieces)) == 50
    assert max(piece.nbytes for piece in pieces) < 16 << 20
    assert json.loads(next(lines(batch, "rows")))["struct"][99] == {name: 1}


def test_slices_and_nulls_inside_of_lists_stay_where_they_are() -> None:
    kinds = (pa.list_, pa.large_list, pa.list_view, pa.large_list_view)
    rows = [[1], None, [], [2, None], [3]]
    for kind in kinds:
        batch = pa.record_batch({"v": pa.array(rows, kind(pa.int64()))}).slice(1, 3)
        assert [json.loads(line)["v"] for line in lines(batch, "rows")] == rows[1:4]


def test_rows_that_a_corpus_keeps_have_words_for_what_is_no_number_and_lose_no_digit() -> None:
    batch = pa.record_batch({"v": [math.nan, math.inf, -math.inf]})
    assert list(lines(batch, "rows", IN_CORPUS)) == [b'{"v":NaN}', b'{"v":Infinity}', b'{"v":-Infinity}']
    batch = pa.record_batch({"v": [D("1.20"), None]})
    assert list(lines(batch, "rows", IN_CORPUS)) == [b'{"v":"1.20"}', b'{"v":null}']


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (
            pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])]),
            "dense_union",
        ),
        (pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), "two fields of one name"),
    ],
)
def test_a_type_without_a_form_is_told_with_its_column(array: pa.Array, why: str) -> None:
    with pytest.raises(InputError, match=f"rows: column 'bad' cannot be written as JSON: .*{why}.*drop the"):
        list(lines(pa.record_batch({"good": [1], "bad": array}), "rows"))


@pytest.mark.parametrize("name", ["chat/sharegpt_3k.parquet", "math/gsm8k_test.parquet"])
def test_real_rows_are_as_they_were(name: str) -> None:
    path = Path(__file__).parents[3].parent / "shared" / "data" / name
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    table = pq.read_table(path)
    found = [json.loads(line) for batch in table.to_batches() for line in lines(batch, name)]
    assert found == table.to_pylist()
