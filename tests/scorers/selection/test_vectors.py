"""Unit vectors in the order of the ids."""

from __future__ import annotations

import numpy as np
import pytest

import scorers.selection.vectors
from scorers.selection.vectors import UnitVectors, blocks
from scorers.signals.columns import Signals
from tests.signal_factory import sample_ids


def test_rows_are_of_length_one_and_in_the_order_of_the_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorers.selection.vectors, "ROWS_AT_ONCE", 7)
    # too long and too short for a float32 to hold the square of
    vectors = np.random.default_rng(0).standard_normal((30, 5)) * np.logspace(-25, 25, 30)[:, None]
    ids = sample_ids(30)
    unit = UnitVectors(
        Signals(ids, {}, {}, np.arange(31), {"mean_hidden": vectors.astype(np.float32)}), "mean_hidden"
    )
    assert ids[unit.order].tolist() == sorted(ids.tolist())
    expected = vectors[unit.order] / np.linalg.norm(vectors[unit.order], axis=1, keepdims=True)
    np.testing.assert_allclose(np.concatenate([rows for _, rows in blocks(unit)]), expected, atol=1e-6)
    some = np.array([29, 3, 3])
    np.testing.assert_allclose(unit[some], expected[some], atol=1e-6)
    assert (unit.shape, unit[some].dtype) == ((30, 5), np.float32)


def test_all_rows_or_some_come_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorers.selection.vectors, "ROWS_AT_ONCE", 4)
    rows = np.arange(18, dtype=np.float32).reshape(9, 2)
    assert [(at.tolist(), block[:, 0].tolist()) for at, block in blocks(rows)] == [
        ([0, 1, 2, 3], [0, 2, 4, 6]),
        ([4, 5, 6, 7], [8, 10, 12, 14]),
        ([8], [16]),
    ]
    wanted = np.array([8, 0, 5, 1, 2])
    assert [(at.tolist(), block[:, 0].tolist()) for at, block in blocks(rows, wanted)] == [
        ([0, 1, 2, 3], [16, 0, 10, 2]),
        ([4], [4]),
    ]


@pytest.mark.parametrize("bad", [[0.0, 0.0], [np.nan, 1.0], [-np.inf, 1.0]])
def test_a_vector_without_a_direction_is_named(bad: list[float]) -> None:
    vectors = np.array([[1.0, 0.0], bad, [0.0, 2.0]], dtype=np.float32)
    signals = Signals(sample_ids(3), {}, {}, np.arange(4), {"mean_hidden": vectors})
    with pytest.raises(ValueError, match=f"mean_hidden of sample {signals.ids[1]} is zero or not finite"):
        UnitVectors(signals, "mean_hidden")


def test_a_missing_signal_is_named() -> None:
    signals = Signals(sample_ids(1), {}, {}, np.arange(2))
    with pytest.raises(ValueError, match="vector signal mean_hidden was not measured; measured are none"):
        UnitVectors(signals, "mean_hidden")
