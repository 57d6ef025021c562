"""A run of the backbone that records how its states follow from what one of its modules puts out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def run_from(
    model: Any, module: Any, input_ids: Tensor, where: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """(states, delta, entered): the states (R, D) at `where`, which is (sample, position); the zero that was
    added to the module's output, by which they can be differentiated; and what had entered the module.

    input_ids (B, L) right-padded. The module has to run once.
    """
    met: list[tuple[Tensor, Tensor]] = []

    def add_delta(_module: Any, arguments: tuple[Tensor], output: Tensor) -> Tensor:
        delta = torch.zeros_like(output, requires_grad=True)
        met.append((delta, arguments[0].detach()))
        return output + delta

    hook = module.register_forward_hook(add_delta)
    try:
        with torch.enable_grad():
            states = model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state[where]
    finally:
        hook.remove()
    [(delta, entered)] = met
    return states, delta, entered
