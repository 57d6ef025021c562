"""A softmax over the vocabulary with all that is read of it, by torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ROWS = 8  # rows whose exponentials a CPU keeps in its cache meanwhile


@dataclass(frozen=True, slots=True)
class Softmax:
    """softmax(z) of R rows, and sums over each: (R) fp32. With e = exp(z - shift):"""

    shift: Tensor
    """The row's largest logit."""
    total: Tensor
    """sum e"""
    weighted: Tensor
    """sum e (z - shift)"""
    squares: Tensor
    """sum e^2 over all tokens but the target"""
    p: Tensor
    """e / total: (R, V), of the dtype asked for."""


def softmax(z: Tensor, targets: Tensor, dtype: torch.dtype) -> Softmax:
    """Of logits z (R, V) fp32 with targets (R). z holds the probabilities in fp32 afterwards."""
    shift = z.amax(-1)
    total, weighted, squares = (torch.empty_like(shift) for _ in range(3))
    at_once = len(z) if z.is_cuda else _ROWS
    for low in range(0, len(z), at_once):
        rows = slice(low, low + at_once)
        exponents = z[rows].sub_(shift[rows, None])
        e = exponents.exp()
        total[rows] = e.sum(-1)
        weighted[rows] = _row_dot(e, exponents)
        torch.div(e, total[rows, None], out=exponents)
        e.scatter_(-1, targets[rows, None], 0)
        squares[rows] = _row_dot(e, e)
    return Softmax(shift, total, weighted, squares, z.to(dtype))


def _row_dot(x: Tensor, y: Tensor) -> Tensor:
    """Row-wise inner products of two (R, V) tensors."""
    if x.is_cuda:
        return (x * y).sum(-1)
    return torch.bmm(x[:, None, :], y[:, :, None])[:, 0, 0]
