"""The position-weighted mean of hidden states: one vector of a whole sample.

`e = sum_i (i / (1 + ... + L)) h_i` over all L positions of a rendered sample, i from 1: what stands later has
read more of it, and weighs more (SGPT, arXiv 2202.08904; RDS+, arXiv 2503.01807).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scorers.signals.transfer import onto

_NUMBERS = 1 << 24
"""Of hidden states, made fp32 at once."""


def weighted_mean(parts: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
    """The weighted means (B, D) fp32 of B right-padded samples of these lengths.

    parts: their states (B, L_part, D), which follow each other; (1, L_part, D) where all samples share them.
    """
    device = parts[0].device
    length = onto(np.asarray(lengths, dtype=np.float64), device)[:, None]
    total = length * (length + 1) / 2
    found = torch.zeros(len(lengths), parts[0].shape[-1], device=device)
    start = 0
    for part in parts:
        step = max(1, _NUMBERS // (part.shape[0] * part.shape[2]))
        for states in torch.split(part, step, dim=1):
            place = torch.arange(start + 1, start + 1 + states.shape[1], device=device)
            weights = (torch.where(place <= length, place, 0) / total).float()  # (B, L)
            found += torch.matmul(weights[:, None, :], states.float())[:, 0]
            start += states.shape[1]
    return found
