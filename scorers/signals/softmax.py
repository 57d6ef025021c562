"""The fastest softmax for a device, with all that is read of it.

Notable choice: on a GPU a kernel of ours (`fused_softmax`) does in two passes over the logits what torch does
in about ten. It is used if it says on the device at hand what torch says, and torch is what it falls back to.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from scorers.signals import plain_softmax
from scorers.signals.plain_softmax import Softmax

_log = logging.getLogger(__name__)


def softmax(z: Tensor, targets: Tensor, dtype: torch.dtype) -> Softmax:
    """Of logits z (R, V) fp32 with targets (R). What z held may be gone afterwards."""
    fused = kernel(z.device) if z.is_cuda else None
    return (fused or plain_softmax.softmax)(z, targets, dtype)


@functools.cache
def kernel(device: torch.device) -> Callable[[Tensor, Tensor, torch.dtype], Softmax] | None:
    """Our kernel, if it runs on the device and agrees with torch there."""
    try:
        from scorers.signals import fused_softmax

        agrees = agree(fused_softmax.softmax, device)
    except Exception as error:  # a compiler that is not there fails in ways of its own
        _log.warning("the softmax kernel does not run on %s, torch's is used: %s", device, error)
        return None
    if not agrees:
        _log.warning("the softmax kernel is wrong on %s, torch's is used", device)
    return fused_softmax.softmax if agrees else None


def agree(other: Callable[[Tensor, Tensor, torch.dtype], Softmax], device: torch.device) -> bool:
    """Whether `other` says what torch says, but for rounding, of rows from nearly flat to nearly certain."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.logspace(-2, 1.5, 24)[:, None]
    z = (torch.randn(24, 5003, generator=generator) * spread + 7).to(device)
    targets = torch.randint(0, 5003, (24,), generator=generator).to(device)
    targets[::2] = z[::2].argmax(-1)
    for dtype, rounding in ((torch.float32, 1e-4), (torch.bfloat16, 1e-2)):
        found, expected = other(z.clone(), targets, dtype), plain_softmax.softmax(z.clone(), targets, dtype)
        if found.p.dtype != dtype:
            return False
        for name, tolerance in (("shift", 0), ("total", 1e-4), ("weighted", 1e-4), ("squares", 1e-4)):
            if not torch.allclose(getattr(found, name), getattr(expected, name), rtol=tolerance, atol=1e-30):
                return False
        if not torch.allclose(found.p.float(), expected.p.float(), rtol=rounding, atol=1e-30):
            return False
    return True
