"""Unit vectors in the order of the ids."""

from __future__ import annotations

import numpy as np
import pytest

import scorers.selection.vectors
from scorers.selection.vectors import unit_vectors
from scorers.signals.columns import Signals
from tests.signal_factory import sample_ids


def test_rows_are_of_length_one_and_in_the_order_of_the_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorers.selection.vectors, "_ROWS_AT_ONCE", 7)
    # too long and too short for a float32 to hold the square of
    vectors = np.random.default_rng(0).standard_normal((30, 5)) * np.logspace(-25, 25, 30)[:, None]
    ids = sample_ids(30)
    order, rows = unit_vectors(
        Signals(ids, {}, {}, np.arange(31), {"mean_hidden": vectors.astype(np.float32)}), "mean_hidden"
    )
    assert ids[order].tolist() == sorted(ids.tolist())
    expected = vectors[order] / np.linalg.norm(vectors[order], axis=1, keepdims=True)
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert rows.dtype == np.float32


@pytest.mark.parametrize("bad", [[0.0, 0.0], [np.nan, 1.0], [-np.inf, 1.0]])
def test_a_vector_without_a_direction_is_named(bad: list[float]) -> None:
    vectors = np.array([[1.0, 0.0], bad, [0.0, 2.0]], dtype=np.float32)
    signals = Signals(sample_ids(3), {}, {}, np.arange(4), {"mean_hidden": vectors})
    with pytest.raises(ValueError, match=f"mean_hidden of sample {signals.ids[1]} is zero or not finite"):
        unit_vectors(signals, "mean_hidden")


def test_a_missing_signal_is_named() -> None:
    signals = Signals(sample_ids(1), {}, {}, np.arange(2))
    with pytest.raises(ValueError, match="vector signal mean_hidden was not measured; measured are none"):
        unit_vectors(signals, "mean_hidden")
