"""Vectors come back from 16 bits a number as close as is said, whatever their scale."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from datapruner.measuring.vectors import pack, packed, unpack, width


def stored(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is read again of what was written to a file."""
    file = io.BytesIO()
    pq.write_table(pa.table({"vector": pack(vectors, vectors.shape[1])}), file, use_dictionary=False)
    file.seek(0)
    return unpack(pl.read_parquet(file)["vector"])


def lengths(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return found


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e30])
def test_a_vector_is_off_by_a_2048th_of_its_length_at_most(scale: float) -> None:
    drawn = np.random.default_rng(0).normal(size=(50, 600)) * scale
    drawn[:, 7] *= 40  # as one number of a hidden state may be
    vectors = drawn.astype(np.float32)
    found = stored(vectors)
    assert found.dtype == np.float32
    assert (lengths(found - vectors) <= lengths(vectors) / 2048).all()


def test_cosines_are_closer_than_those_of_half_precision() -> None:
    vectors = np.random.default_rng(1).standard_t(3, size=(200, 576)).astype(np.float32)

    def cosines(of: NDArray[np.generic]) -> NDArray[np.float64]:
        unit = of.astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        found: NDArray[np.float64] = unit @ unit.T
        return found

    exact = cosines(vectors)
    ours = np.abs(cosines(stored(vectors)) - exact).max()
    assert ours < 1e-4
    assert ours < np.abs(cosines((vectors / 3e4).astype(np.float16)) - exact).max()


def test_one_number_that_is_nearly_the_whole_vector_still_fits() -> None:
    vectors = np.full((1, 4096), 1e-3, dtype=np.float32)
    vectors[0, 9] = -1000
    found = stored(vectors)
    assert found[0, 9] == pytest.approx(-1000, rel=1e-6)
    assert lengths(found - vectors)[0] <= lengths(vectors)[0] / 1024


def test_what_is_not_finite_stays_known_as_that_and_nothing_stays_nothing() -> None:
    vectors = np.ones((4, 3), dtype=np.float32)
    vectors[0, 1], vectors[1, 2], vectors[2] = np.nan, np.inf, 0
    found = stored(vectors)
    assert np.isnan(found[:2]).all()
    assert found[2:].tolist() == [[0, 0, 0], [1, 1, 1]]


def test_a_vector_is_the_same_in_whatever_company_it_is_written() -> None:
    vectors = np.random.default_rng(2).normal(size=(9, 64)).astype(np.float32)
    together = pack(vectors, 64)
    alone = [pack(vectors[at : at + 1], 64) for at in range(9)]
    assert together.to_pylist() == [each[0].as_py() for each in alone]


def test_a_column_tells_its_width_and_which_vectors_are_missing() -> None:
    column = pack([np.ones(5, dtype=np.float32), None], 5)
    assert column.is_null().to_pylist() == [False, True]
    assert column.type == packed(5)
    assert width(packed(5)) == 5
    series = pl.Series(pack(np.eye(4, dtype=np.float32), 4))
    assert unpack(series[[2, 0]]).tolist() == np.eye(4)[[2, 0]].tolist()
    assert unpack(series[1:]).tolist() == np.eye(4)[1:].tolist()
    assert len(unpack(series[:0])) == 0
