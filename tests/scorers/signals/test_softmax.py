"""The softmax of the vocabulary: sums against fp64, and our GPU kernel, run by Triton's interpreter here."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from scorers.signals import plain_softmax
from scorers.signals.plain_softmax import Softmax
from scorers.signals.softmax import agree, kernel, softmax

CPU = torch.device("cpu")


def logits() -> tuple[torch.Tensor, torch.Tensor]:
    """19 rows from nearly flat to nearly certain, over a vocabulary that no block divides."""
    generator = torch.Generator().manual_seed(5)
    z = torch.randn(19, 1013, generator=generator) * torch.logspace(-2, 1.5, 19)[:, None] - 3
    targets = torch.randint(0, 1013, (19,), generator=generator)
    targets[::3] = z[::3].argmax(-1)
    return z, targets


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_sum_equals_its_fp64_value(dtype: torch.dtype) -> None:
    z, targets = logits()
    found = softmax(z.clone(), targets, dtype)
    shifted = z.double() - z.double().amax(-1, keepdim=True)
    e = shifted.exp()
    others = e.clone()
    others[torch.arange(len(z)), targets] = 0
    assert torch.equal(found.shift, z.amax(-1))
    assert torch.allclose(found.total.double(), e.sum(-1), rtol=1e-6)
    assert torch.allclose(found.weighted.double(), (e * shifted).sum(-1), rtol=1e-5)
    assert torch.allclose(found.squares.double(), others.square().sum(-1), rtol=1e-5)
    assert found.p.dtype == dtype
    rounding = 1e-5 if dtype == torch.float32 else 4e-3
    assert torch.allclose(found.p.double(), e / e.sum(-1, keepdim=True), rtol=rounding)


def test_another_softmax_is_taken_only_if_it_agrees() -> None:
    def with_wrong(name: str) -> bool:
        def other(z: torch.Tensor, targets: torch.Tensor, dtype: torch.dtype) -> Softmax:
            found = plain_softmax.softmax(z, targets, dtype)
            getattr(found, name)[3] *= 1.02
            return found

        return agree(other, CPU)

    assert agree(plain_softmax.softmax, CPU)
    assert not any(with_wrong(name) for name in ("shift", "total", "weighted", "squares", "p"))
    assert not agree(lambda z, y, _dtype: plain_softmax.softmax(z, y, torch.float32), CPU)


def test_a_kernel_that_does_not_run_is_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    assert kernel(CPU) is None  # Triton is not here, or has no such device
    assert "torch's is used" in caplog.text


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed: pip install triton")
def test_the_kernel_agrees_when_interpreted() -> None:
    code = (
        "import torch; from scorers.signals.softmax import agree; from scorers.signals import fused_softmax;"
        "print(agree(fused_softmax.softmax, torch.device('cpu')))"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "1"}  # read as Triton is imported
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert ran.stdout.strip() == "True", ran.stderr
