"""DEALRec's effort: how hard a sample pulls at what fine-tuning would train (arXiv 2401.17197).

That is the norm of its gradient by the last block's `v_proj.lora_B`, for a fresh LoRA of rank 8 and alpha 16
on q and v. A fresh `lora_B` is zero, so no adapter changes the model yet and each `lora_A` has no gradient;
with delta_t the gradient of the sample's mean nll by the output of v_proj at position t, and x_t its input,

    grad = (alpha / r) * sum_t delta_t (A x_t)^T

Notable choices:
- A is drawn as PEFT draws it, uniform in +-1/sqrt(width), but by numpy's Philox from a fixed seed: the same
  on every machine. No adapter is put into the model, so nothing has to be taken out again;
- no dropout, which the authors' code has on: a score should not be a draw;
- the loss is that of the response, as in every other signal, where the authors' code takes the prompt in; and
  the adapter is fresh, where theirs goes on from one trained on Alpaca if it is given one;
- delta enters behind v_proj of the last block, so that only this block is recorded and walked backward, and
  every sample of a batch gets its own gradient from one pass. The vocabulary-sized part is not recorded
  either: `d nll_t / d h_t = W^T g_t` is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scorers.signals.backward import run_from
from scorers.signals.head import Head, residuals
from scorers.signals.transfer import onto

RANK, ALPHA, SEED = 8, 16, 240117197


@dataclass(frozen=True, slots=True)
class FreshAdapter:
    """A LoRA before its first step on the last block's v_proj: down is A (r, width), up is still zero."""

    v_proj: nn.Linear
    down: Tensor

    @classmethod
    def of(cls, model: Any) -> FreshAdapter:
        """Raises ValueError for a model without a v_proj of its own."""
        layers = [
            layer
            for name, layer in model.base_model.named_modules()
            if name.endswith("v_proj") and isinstance(layer, nn.Linear)
        ]
        if not layers:
            raise ValueError(
                f"{type(model).__name__} has no layer called v_proj, which LoRA effort is taken from; "
                "use the head's gradient as effort, or another proxy model"
            )
        width = layers[-1].in_features
        rng = np.random.Generator(np.random.Philox(SEED))
        down = rng.uniform(-1, 1, (RANK, width)).astype(np.float32) / np.sqrt(np.float32(width))
        return cls(layers[-1], torch.from_numpy(down).to(layers[-1].weight.device))


def lora_effort(
    model: Any,
    head: Head,
    adapter: FreshAdapter,
    input_ids: Tensor,
    where: tuple[Tensor, Tensor],
    targets: Tensor,
    lengths: Sequence[int],
    chunk_rows: int,
) -> Tensor:
    """Effort of each sample of a batch: an (n) fp64 tensor.

    input_ids (B, L) right-padded; `where` = (sample, position) of the R states that predict `targets`;
    `lengths` says how many of them each sample has. At most `chunk_rows` rows of (V) logits exist at a time.
    """
    hidden, at_output, entered = run_from(model, adapter.v_proj, input_ids, where)
    sample_of, _ = where
    count = onto(np.asarray(lengths, dtype=np.float32), hidden.device)
    by_state = torch.empty(hidden.shape, device=hidden.device)  # d loss / d h, (R, D)
    with torch.no_grad():
        weight = head.weight.float()
        for low in range(0, len(targets), chunk_rows):
            rows = slice(low, low + chunk_rows)
            g = residuals(head, hidden[rows].detach(), targets[rows]).g
            by_state[rows] = g @ weight / count[sample_of[rows], None]
    (delta,) = torch.autograd.grad(hidden, at_output, by_state.to(hidden.dtype))  # (B, L, out)
    with torch.no_grad():
        low_rank = entered.float() @ adapter.down.T  # (B, L, r)
        grad = torch.einsum("blo,blr->bor", delta.float(), low_rank) * (ALPHA / RANK)
        return grad.double().square().sum((1, 2)).sqrt()
