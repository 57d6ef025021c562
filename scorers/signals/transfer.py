"""Between host and device without waiting: arrays go there, results are fetched while the next batch runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def onto(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array as a tensor on the device; it may share the array's memory on a CPU."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def fetch(tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """Start to copy the tensors to the host; what is returned waits for the copies and hands them over."""
    if not tensors[0].is_cuda:
        return lambda: [tensor.cpu() for tensor in tensors]
    copies = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
    for copy, tensor in zip(copies, tensors, strict=True):
        copy.copy_(tensor, non_blocking=True)
    copied: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record(torch.cuda.current_stream(tensors[0].device))

    def arrived() -> list[Tensor]:
        copied.synchronize()
        return copies

    return arrived
