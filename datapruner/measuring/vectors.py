"""Vectors of samples in a shard: whole numbers of 16 bits, times a step that each vector has of its own.

The step is 1/1024 of the vector's root mean square, or what its largest number needs to fit. So a vector
comes back with an error of at most 1/2048 of its length (1/1024 where one of 4,096 numbers is nearly all of
it), 0.03 % as a rule, whatever its scale is; hidden states and gradients reach beyond what half precision can
hold. On Alpaca cosines are off by 1e-4 at most, where float16 is off by 2e-4, and 1.5 bytes a number are
left of four (`benchmarks/disk.py`).

Notable choices:
- the upper bytes of all numbers stand apart from the lower ones: few of their bits are used, which
  compression finds in the first and loses in a mixture;
- bytes, not lists of numbers: Parquet would keep, and readers read, two levels for each number of a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars as pl  # which measuring processes do without

_PARTS = 1024
_LARGEST = 32767
_STEP, _HIGH, _LOW = "step", "high", "low"


def packed(width: int) -> pa.StructType:
    """The Arrow type of a column of vectors with so many dimensions."""
    return pa.struct([(_STEP, pa.float32()), (_HIGH, pa.binary(width)), (_LOW, pa.binary(width))])


def width(kind: pa.StructType) -> int:
    """The dimensions of a type that `packed` made."""
    return int(kind.field(_HIGH).type.byte_width)


def pack(vectors: Sequence[NDArray[np.float32] | None] | NDArray[np.float32], width: int) -> pa.StructArray:
    """A column of vectors (width,); None is null. One that is not finite becomes NaN as a whole."""
    missing = np.array([vector is None for vector in vectors], dtype=np.bool_)
    values = np.zeros((len(vectors), width), dtype=np.float32)
    if not missing.all():
        values[~missing] = [vector for vector in vectors if vector is not None]
    steps = _steps(values)
    usable = np.isfinite(steps) & (steps > 0)
    whole = np.zeros(values.shape, dtype="<i2")
    divided = values[usable] / steps[usable, None]
    whole[usable] = np.rint(np.clip(divided, -_LARGEST, _LARGEST)).astype("<i2")
    parts = whole.view(np.uint8).reshape(len(values), width, 2)
    columns = [pa.array(steps), *(_binary(parts[:, :, at]) for at in (1, 0))]
    return pa.StructArray.from_arrays(columns, fields=list(packed(width)), mask=pa.array(missing))


def unpack(column: pl.Series) -> NDArray[np.float32]:
    """The vectors (N, width) of a column without nulls."""
    if not len(column):
        return np.empty((0, 0), dtype=np.float32)
    high, low = (_bytes(column.struct.field(name)) for name in (_HIGH, _LOW))
    vectors = high.view(np.int8).astype(np.float32)
    vectors *= 256
    vectors += low
    vectors *= column.struct.field(_STEP).to_numpy()[:, None]
    return vectors


def _steps(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each vector, NaN where it is not finite, 0 where it is nothing."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.sqrt(np.square(values, dtype=np.float64).mean(axis=1))
        steps = np.maximum(mean / _PARTS, np.abs(values).max(axis=1, initial=0) / _LARGEST)
    steps[~np.isfinite(steps)] = np.nan
    found: NDArray[np.float32] = steps.astype(np.float32)
    return found


def _binary(rows: NDArray[np.uint8]) -> pa.FixedSizeBinaryArray:
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(rows.shape[1]), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows))]
    )


def _bytes(column: pl.Series) -> NDArray[np.uint8]:
    """Byte strings of one length as rows, (N, length)."""
    array = column.rechunk().to_arrow()
    offset = array.offset
    length = len(array[0].as_py())
    flat = np.frombuffer(array.buffers()[2], dtype=np.uint8, count=(offset + len(array)) * length)
    return flat.reshape(-1, length)[offset:]
