"""Rows from Python: kept as JSON without changing a value."""

from __future__ import annotations

import datetime as dt
import json
import math
from typing import Any

import numpy as np
import pytest

from datapruner.input.readers.pyrows import read_row
from datapruner.input.shapes import Limits


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "NaN"),
        ([None, {"x": -math.inf}], '[null,{"x":-Infinity}]'),
        (np.array([1.5, math.inf]), "[1.5,Infinity]"),
        (np.float32("nan"), "NaN"),
        (10**30, str(10**30)),
        ({"n": [2**64], "day": dt.date(2024, 1, 2)}, '{"n":[18446744073709551616],"day":"2024-01-02"}'),
        (b"\x00\xff", '"AP8="'),
        ({"image": {"bytes": bytearray(b"abc")}}, '{"image":{"bytes":"YWJj"}}'),
        ([1.0, None, 1e-9], "[1.0,null,1e-9]"),
        (dt.date(2024, 1, 2), '"2024-01-02"'),
    ],
)
def test_a_value_is_kept_as_it_is(value: Any, text: str) -> None:
    record = read_row(1, {"v": value, "s": "é"}, Limits())
    assert record.fault is None
    assert record.text is not None
    assert json.loads(record.text)["s"] == "é"
    assert record.text.decode() == f'{{"v":{text},"s":"é"}}'


@pytest.mark.parametrize("value", ["\ud800", {(1, 2): 3}])
def test_what_json_has_no_form_for_is_the_fault_of_the_row(value: Any) -> None:
    assert read_row(3, {"v": value, "n": 10**30}, Limits()).fault is not None
    assert read_row(3, {"v": value}, Limits()).fault is not None
