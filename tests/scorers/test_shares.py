"""Shares of whole numbers, against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.shares import count_to_keep, tolerant_ceil, tolerant_floor


def test_no_share_of_nothing_is_anything() -> None:
    assert count_to_keep(0.5, 0) == 0


@given(st.integers(1, 1000), st.integers(1, 20_000))
def test_a_share_in_thousandths_keeps_its_exact_ceiling(thousandths: int, n: int) -> None:
    assert count_to_keep(thousandths / 1000, n) == math.ceil(Fraction(thousandths, 1000) * n)


@given(st.integers(1, 100), st.integers(0, 5000))
def test_a_share_in_hundredths_has_its_exact_floor(hundredths: int, length: int) -> None:
    assert tolerant_floor(hundredths / 100 * length) == math.floor(Fraction(hundredths, 100) * length)


@given(st.integers(1, 10**9), st.data())
def test_a_count_expressed_as_a_share_comes_back_as_that_count(n: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, n))
    assert count_to_keep(count / n, n) == count


def test_rounding_errors_are_not_rounded_up_or_down() -> None:
    assert math.ceil(0.07 * 100) == 8
    assert tolerant_ceil(0.07 * 100) == 7
    assert math.floor(0.29 * 100) == 28
    assert tolerant_floor(0.29 * 100) == 29
    assert tolerant_floor(0.7 * 10) == 7


@pytest.mark.parametrize("share", [0, -0.1, 1.0001, math.nan, math.inf])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"keep share is .* over 0 and at most 1"):
        count_to_keep(share, 10)
