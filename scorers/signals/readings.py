"""The head read at every response position of a batch, in chunks of logits that fit the device.

Notable choices:
- nothing here waits for the device: what depends on lengths is worked out on the host, and results stay
  where they are;
- on a GPU a model in bfloat16 has its residuals rounded to it for the products over the vocabulary, which
  tensor cores multiply and sum in fp32; everything else is fp32, and per-sample sums are fp64;
- a sample whose (T, V) does not fit the chunk is recomputed for its norm, vocabulary block by block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scorers.models.products import linear, widened
from scorers.signals import norms
from scorers.signals.head import Head, Projection, residuals
from scorers.signals.transfer import onto

_BY_TOKEN = ("nll", "entropy", "el2n", "top1", "dot", "shift", "total")


@dataclass(frozen=True, slots=True)
class Readings:
    """What the head says of n samples with R response positions in all, on its device."""

    tokens: Tensor
    """(4, R) fp32: nll, entropy, el2n and whether the target is the likeliest token."""
    norm: Tensor
    """(n) fp64: ||G||."""
    dot: Tensor
    """(n) fp64: <W, G>."""
    vectors: Tensor
    """(n, k1 * k2 + D) fp32: the projection of G, then the mean hidden state."""


def read(
    head: Head,
    projection: Projection,
    hidden: Tensor,
    targets: Tensor,
    lengths: Sequence[int],
    chunk_rows: int,
) -> Readings:
    """Read the head at every response position of a batch.

    hidden (R, D): the states that predict `targets` (R), sample after sample; `lengths` says how many rows
    each sample has. About `chunk_rows` rows of (V) logits exist at a time, for which samples that follow each
    other should be of like length.
    """
    device, n = hidden.device, len(lengths)
    sample_of = onto(np.repeat(np.arange(n), lengths), device)
    count = onto(np.asarray(lengths, dtype=np.float64), device)
    dtype = product_dtype(hidden)
    vocabulary = projection.vocabulary.to(dtype)
    hidden32 = hidden.float()
    hidden_side = linear(hidden32, projection.hidden)  # (R, k2)
    projected = torch.zeros(n, len(vocabulary) * hidden_side.shape[1], device=device)
    norm2 = torch.zeros(n, device=device, dtype=torch.float64)
    parts: list[list[Tensor]] = []
    for samples, rows in chunks(lengths, chunk_rows):
        here = [lengths[i] for i in samples]
        size = rows.stop - rows.start
        extra = -size % norms.tile(here) if norms.tiles_pay(device) else 0
        h, y = hidden[rows], targets[rows]
        if extra:
            h, y = (torch.cat([x, x.new_zeros(extra, *x.shape[1:])]) for x in (h, y))
        r = residuals(head, h, y, dtype)
        outer = widened(r.g[:size], vocabulary)[:, :, None] * hidden_side[rows][:, None, :]
        projected.index_add_(0, sample_of[rows], outer.flatten(1))
        if sum(here) == size:
            within = torch.nn.functional.pad(sample_of[rows] - samples.start, (0, extra), value=len(here))
            norm2[samples.start : samples.stop] = norms.squared_norms(r.g, h.to(dtype), here, within)
        parts.append([getattr(r, name)[:size] for name in _BY_TOKEN])
        del r  # before the next chunk is made
    nll, entropy, el2n, top1, dot, shift, total = (torch.cat(part) for part in zip(*parts, strict=True))
    ends = np.cumsum(lengths).tolist()
    for i, length in enumerate(lengths):
        if length > chunk_rows:
            rows = slice(ends[i] - length, ends[i])
            distribution = (nll[rows], shift[rows], total[rows])
            norm2[i] = _long_norm2(head, hidden[rows], targets[rows], distribution, chunk_rows, dtype)
    mean_hidden = torch.zeros(n, hidden.shape[1], device=device).index_add_(0, sample_of, hidden32)
    return Readings(
        tokens=torch.stack([nll, entropy, el2n, top1.float()]),
        norm=norm2.sqrt() / count,
        dot=torch.zeros_like(count).index_add_(0, sample_of, dot.double()) / count,
        vectors=torch.cat([projected, mean_hidden], 1) / count.float()[:, None],
    )


def product_dtype(hidden: Tensor) -> torch.dtype:
    """What residuals are rounded to before they are multiplied with each other."""
    rounded = hidden.is_cuda and hidden.dtype == torch.bfloat16
    return torch.bfloat16 if rounded else torch.float32


def chunks(lengths: Sequence[int], limit: int) -> list[tuple[range, slice]]:
    """Runs of whole samples of at most `limit` rows; a longer sample alone, in pieces of `limit`."""
    out: list[tuple[range, slice]] = []
    first = start = rows = 0
    for i, length in enumerate(lengths):
        if rows and rows + length > limit:
            out.append((range(first, i), slice(start, start + rows)))
            first, start, rows = i, start + rows, 0
        if length > limit:
            stop = start + length
            out += [(range(i, i + 1), slice(s, min(s + limit, stop))) for s in range(start, stop, limit)]
            first, start, rows = i + 1, stop, 0
        else:
            rows += length
    if rows:
        out.append((range(first, len(lengths)), slice(start, start + rows)))
    return out


def _long_norm2(
    head: Head,
    hidden: Tensor,
    targets: Tensor,
    distribution: tuple[Tensor, Tensor, Tensor],
    chunk_rows: int,
    dtype: torch.dtype,
) -> Tensor:
    """||sum_t g_t h_t^T||^2 of one sample whose (T, V) would not fit: vocabulary block by block.

    distribution: its nll, shift and total (T). The same `chunk_rows * V` elements bound a block of (T, c).
    Gram form when T <= D.
    """
    nll, shift, total = distribution
    length, dim = hidden.shape
    vocabulary = head.weight.shape[0]
    width = max(1, chunk_rows * vocabulary // length)
    gram = torch.zeros(length, length, device=hidden.device) if length <= dim else None
    norm2 = torch.zeros((), dtype=torch.float64, device=hidden.device)
    for low in range(0, vocabulary, width):
        columns = slice(low, min(low + width, vocabulary))
        raw = head.raw(hidden, columns)
        p = (head.logits(raw, columns) - shift[:, None]).exp_().div_(total[:, None])
        inside = (targets >= low) & (targets < columns.stop)
        at = (targets - low).clamp(0, p.shape[1] - 1)[:, None]
        p.scatter_(1, at, torch.where(inside[:, None], torch.expm1(-nll)[:, None], p.gather(1, at)))
        g = head.through_logits(p, raw, columns).to(dtype)
        if gram is not None:
            gram += widened(g, g)
        else:
            norm2 += norms.of_sample(g, hidden.to(dtype))
    if gram is not None:
        norm2 = (gram * widened(hidden, hidden)).sum(dtype=torch.float64)
    return norm2.clamp(min=0)
