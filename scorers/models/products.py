"""Matrix products in full and in half precision, by the fastest way that sums them in fp32.

On a CPU, torch's `linear` of fp32 goes to the BLAS that torch was built with, which on many processors does
not use their widest instructions; oneDNN, through which torch takes half precision, does. Both multiply and
add in fp32, so that results differ by the order of additions only.

Notable choice: oneDNN's operator records no gradient, so where one is recorded torch's own is taken.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x weight^T + bias` of x (..., K) and weight (N, K), in their dtype."""
    if torch.is_grad_enabled() or x.dtype != torch.float32 or x.device.type != "cpu" or not _by_onednn():
        return nn.functional.linear(x, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def widened(x: Tensor, weight: Tensor) -> Tensor:
    """`x weight^T` of x (M, K) and weight (N, K), summed and returned in fp32 whatever their dtype."""
    if x.dtype != torch.float32 and x.is_cuda and _widens(torch.mm, x.device, x.dtype):
        return torch.mm(x, weight.T, out_dtype=torch.float32)
    return linear(x.float(), weight.float())


def widened_pairs(a: Tensor, b: Tensor) -> Tensor:
    """`a_i b_i^T` of a (n, M, K) and b (n, N, K), summed and returned in fp32 whatever their dtype."""
    if a.dtype != torch.float32 and a.is_cuda and _widens(torch.bmm, a.device, a.dtype):
        return torch.bmm(a, b.mT, out_dtype=torch.float32)
    return torch.bmm(a.float(), b.float().mT)


def speed_up(model: nn.Module) -> None:
    """Make the model's linear layers multiply by `linear`."""
    for module in model.modules():
        if type(module) in _FASTER:
            module.__class__ = _FASTER[type(module)]


def speed_up_frozen(model: nn.Module) -> None:
    """Make the model's linear layers that are not trained multiply by `linear` where a gradient passes
    through them too: that takes no more than another product. `speed_up` came before."""
    for module in model.modules():
        if type(module) is Linear and not module.weight.requires_grad:
            module.__class__ = FrozenLinear


class Linear(nn.Linear):
    """A linear layer that multiplies by `linear`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name for it)
        return linear(input, self.weight, self.bias)


class FrozenLinear(Linear):
    """The same without a gradient of its own, which hands on that of what it is given."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name for it)
        if not torch.is_grad_enabled():
            return super().forward(input)
        found: Tensor = _ThroughFrozen.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return found


class _ThroughFrozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weight,), (by_output,) = ctx.saved_tensors, gradients
        return linear(by_output, weight.T), None, None


class TransposedLinear(Conv1D):  # type: ignore[misc]
    """The same of a layer of GPT-2, whose weight is (K, N)."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight.T, self.bias)


_FASTER: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: Linear, Conv1D: TransposedLinear}


@functools.cache
def _by_onednn() -> bool:
    """Whether this build of torch has oneDNN's operator, and it says what `linear` says."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in ((2, 5, 96), (33, 96), (33,)))
    operator: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if operator is None:
        return False
    with torch.inference_mode():
        try:
            found = operator(x, weight, bias, "none", [], "")
        except (RuntimeError, TypeError):
            return False
        return torch.allclose(found, nn.functional.linear(x, weight, bias), rtol=1e-4, atol=1e-4)


@functools.cache
def _widens(multiply: Callable[..., Tensor], device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `multiply` (mm or bmm) of this build takes half precision of the device straight to fp32."""
    shape = (16, 16) if multiply is torch.mm else (2, 16, 16)
    probe = torch.ones(shape, device=device, dtype=dtype)
    try:
        multiply(probe, probe, out_dtype=torch.float32)
    except (TypeError, RuntimeError, NotImplementedError):
        return False
    return True
