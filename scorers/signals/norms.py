"""||sum_t g_t h_t^T||^2 of many samples at once, without the matrix (METHODS: DONOD, closed form).

Up to D tokens it is the Gram form `sum_ts (g_t.g_s)(h_t.h_s)`, above that `||g^T H||^2` by blocks of the
vocabulary: whichever multiplies less.

Notable choices:
- on a GPU, where a kernel costs more to start than a sample to multiply, the Gram form runs over tiles of
  rows whatever sample they are of: tile i by tile i + d for every d that a sample spans, with the pairs of
  different samples masked out. That takes a few kernels for each d, no copy and no padding;
- on a CPU samples take turns, and each pair of tokens is multiplied once where that saves time;
- products of half precision are summed in fp32, and what they come to in fp64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scorers.models.products import widened, widened_pairs

TILES = (64, 128, 256)
"""Rows of a tile: the least that holds half of the longest sample, so that few pairs are of two samples."""
_BLOCK = 2**25  # elements of a block of G on a GPU
_WHOLE_ROWS = 128  # rows that a CPU multiplies by themselves faster than half of them twice


def squared_norms(g: Tensor, hidden: Tensor, lengths: Sequence[int], sample_of: Tensor) -> Tensor:
    """(n) fp64: one for each sample of `lengths`, whose rows follow each other in g (R, V) and hidden (R, D).

    sample_of (R): the sample of each row. Where tiles pay, R is a multiple of `tile(lengths)`; rows past the
    last sample are of a sample n, and count for nothing.
    """
    dim = hidden.shape[1]
    if tiles_pay(g.device):
        norms = by_tiles(g, hidden, lengths, sample_of, tile(lengths))
        turns = [i for i, length in enumerate(lengths) if length > dim]
    else:
        norms = torch.empty(len(lengths), dtype=torch.float64)
        turns = list(range(len(lengths)))
    ends = np.cumsum(lengths).tolist()
    for i in turns:
        rows = slice(ends[i] - lengths[i], ends[i])
        norms[i] = of_sample(g[rows], hidden[rows])
    return norms.clamp_(min=0)


def tiles_pay(device: torch.device) -> bool:
    """Whether to take the Gram form by tiles and not sample by sample."""
    return device.type == "cuda"


def tile(lengths: Sequence[int]) -> int:
    """Rows of a tile for samples of these lengths."""
    return next((size for size in TILES if size * 2 >= max(lengths)), TILES[-1])


def by_tiles(g: Tensor, hidden: Tensor, lengths: Sequence[int], sample_of: Tensor, rows: int) -> Tensor:
    """The Gram form by tiles of `rows` rows: (n) fp64. Right for samples of at most D tokens only."""
    ends = np.cumsum(lengths)
    first, last = (ends - lengths) // rows, (ends - 1) // rows
    short = np.asarray(lengths) <= hidden.shape[1]
    g_tiles, h_tiles = g.view(-1, rows, g.shape[1]), hidden.view(-1, rows, hidden.shape[1])
    samples = sample_of.view(-1, rows)
    norms = torch.zeros(len(lengths) + 1, dtype=torch.float64, device=g.device)
    for apart in range(int((last - first)[short].max(initial=-1)) + 1):
        n = int((last - apart)[short & (last - first >= apart)].max()) + 1
        here, there = slice(n), slice(apart, apart + n)
        pairs = widened_pairs(g_tiles[here], g_tiles[there])
        pairs *= widened_pairs(h_tiles[here], h_tiles[there])
        pairs.masked_fill_(samples[here, :, None] != samples[there, None, :], 0)
        by_row = pairs.sum(-1, dtype=torch.float64).flatten()
        norms.index_add_(0, samples[here].flatten(), by_row, alpha=1 if apart == 0 else 2)
    return norms[:-1]


def of_sample(g: Tensor, hidden: Tensor) -> Tensor:
    """The same of one sample, g (T, V) and hidden (T, D): fp64, no dimensions."""
    length, dim = hidden.shape
    if length <= dim:
        return _gram_sum(g, hidden)
    norm = torch.zeros((), dtype=torch.float64, device=g.device)
    width = _BLOCK // dim if g.is_cuda else 2 * dim
    for block in torch.split(g, width, dim=1):
        norm += widened(block.T, hidden.T).square().sum(dtype=torch.float64)
    return norm


def _gram_sum(g: Tensor, hidden: Tensor) -> Tensor:
    """sum over t, s of (g_t.g_s)(h_t.h_s). The matrices are symmetric: no pair is multiplied twice."""
    if len(g) <= _WHOLE_ROWS:
        return (widened(g, g) * widened(hidden, hidden)).sum(dtype=torch.float64)
    half = len(g) // 2
    across = (widened(g[:half], g[half:]) * widened(hidden[:half], hidden[half:])).sum(dtype=torch.float64)
    return _gram_sum(g[:half], hidden[:half]) + _gram_sum(g[half:], hidden[half:]) + 2 * across
