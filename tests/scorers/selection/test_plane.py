"""Quantiles of the plane against numpy's; how it divides and fills is tested with Q-Tuning's pseudo-code."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scorers.selection.plane import linear_quantile


@given(
    st.lists(st.floats(1, 1e6) | st.just(3.0) | st.just(8e307), min_size=1, max_size=40),
    st.lists(st.floats(0, 1) | st.sampled_from([0, 0.5, 1]), min_size=1, max_size=5),
)
def test_quantiles_are_those_of_numpy_to_the_last_bit(values: list[float], shares: list[float]) -> None:
    ordered = np.sort(np.array([values] * len(shares)), axis=1)
    expected = [float(np.quantile(values, share)) for share in shares]
    assert linear_quantile(ordered, np.array(shares, dtype=np.float64)).tolist() == expected
