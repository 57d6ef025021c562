"""`softmax` as one kernel for a GPU: two passes over a row, of which the second writes the probabilities.

The first keeps, in every lane, the largest logit so far and the sums relative to it; a larger one rescales
them. Needs Triton, which comes with torch for GPUs, so that this module is imported only where there is one.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from scorers.signals.plain_softmax import Softmax

_LANES = 2048


def softmax(z: Tensor, targets: Tensor, dtype: torch.dtype) -> Softmax:
    """As `plain_softmax.softmax`, but z stays as it is."""
    z = z.contiguous()
    sums = torch.empty(4, len(z), device=z.device)
    p = torch.empty(z.shape, dtype=dtype, device=z.device)
    with torch.cuda.device_of(z):  # type: ignore[no-untyped-call]
        _row[(len(z),)](z, targets, sums, p, len(z), z.shape[1], LANES=_LANES, num_warps=8)
    shift, total, weighted, squares = sums.unbind()
    return Softmax(shift, total, weighted, squares, p)


@triton.jit  # type: ignore[untyped-decorator]
def _row(z, targets, sums, p, rows, width, LANES: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    z += row * width
    p += row * width
    target = tl.load(targets + row)
    lanes = tl.arange(0, LANES)
    shift = tl.full((LANES,), -1e30, tl.float32)
    total = tl.zeros((LANES,), tl.float32)
    weighted = tl.zeros((LANES,), tl.float32)
    squares = tl.zeros((LANES,), tl.float32)
    for low in range(0, width, LANES):
        column = low + lanes
        x = tl.load(z + column, mask=column < width, other=-1e30)
        larger = tl.maximum(shift, x)
        back = tl.exp(shift - larger)
        e = tl.where(column < width, tl.exp(x - larger), 0.0)
        weighted = back * (weighted + (shift - larger) * total) + e * (x - larger)
        total = back * total + e
        squares = back * back * squares + tl.where(column == target, 0.0, e * e)
        shift = larger
    largest = tl.max(shift, 0)
    back = tl.exp(shift - largest)
    total_of_row = tl.sum(back * total, 0)
    tl.store(sums + row, largest)
    tl.store(sums + rows + row, total_of_row)
    tl.store(sums + 2 * rows + row, tl.sum(back * (weighted + (shift - largest) * total), 0))
    tl.store(sums + 3 * rows + row, tl.sum(back * back * squares, 0))
    for low in range(0, width, LANES):
        column = low + lanes
        x = tl.load(z + column, mask=column < width, other=-1e30)
        probability = tl.exp(x - largest) / total_of_row
        tl.store(p + column, probability.to(p.dtype.element_ty), mask=column < width)
