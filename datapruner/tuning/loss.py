"""The loss of tokens that count, and its gradient, without the logits of any others.

Notable choices:
- hidden states are gathered first; logits exist of one chunk at a time, and only until its gradient by the
  hidden states (and by the head's weight, where that is trained) is taken: nothing is computed twice;
- the head is read as in measuring (`scorers.signals.head`), in fp32 whatever the model's dtype.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scorers.models.products import linear
from scorers.signals.head import Head, residuals

_LOGITS_AT_ONCE = {"cpu": 1 << 24, "cuda": 1 << 29}


def summed_nll(head: Head, hidden: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """The nats of `targets` (R,) given the hidden states (R, D) that predict them, summed, fp32; each times
    its weight, (R,), where there are any.

    Differentiable by the hidden states and, where it requires a gradient, by the head's weight.
    """
    found: Tensor = _SummedNll.apply(hidden, head.weight, targets, weights, head)  # type: ignore[no-untyped-call]
    return found


def nll(head: Head, hidden: Tensor, targets: Tensor) -> Tensor:
    """The nats of each target, (R,) fp32, without a gradient."""
    found, count = [], _rows(head, hidden)
    for some, wanted in zip(torch.split(hidden, count), torch.split(targets, count), strict=True):
        logits = head.logits(head.raw(some))
        found.append(torch.nn.functional.cross_entropy(logits, wanted, reduction="none"))
    return torch.cat(found)


def _rows(head: Head, hidden: Tensor) -> int:
    return max(16, _LOGITS_AT_ONCE.get(hidden.device.type, 1 << 24) // head.weight.shape[0])


class _SummedNll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, factors: Tensor | None, head: Head
    ) -> Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        by_hidden = torch.empty_like(hidden)
        by_weight = torch.zeros_like(weight) if weight.requires_grad else None
        count = _rows(head, hidden)
        for start in range(0, len(hidden), count):
            here = slice(start, start + count)
            found = residuals(head, hidden[here], targets[here], hidden.dtype)
            nll, g = found.nll, found.g
            if factors is not None:
                nll, g = nll * factors[here], g * factors[here, None].to(g.dtype)
            total += nll.sum()
            by_hidden[here] = linear(g, weight.T)
            if by_weight is not None:
                by_weight += g.T @ hidden[here]
        ctx.save_for_backward(by_hidden, by_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        by_hidden, by_weight = ctx.saved_tensors
        (upstream,) = gradients
        return by_hidden * upstream, None if by_weight is None else by_weight * upstream, None, None, None
