"""The output head, read exactly: everything that a token's distribution says, without storing it.

With `u = h W^T` the raw head output, logits are `z = softcap(scale * u + b)`, `p = softmax(z)` and
`a = p - onehot(y)`. The gradient of a token's nll by `u` is `g = a * dz/du`, so the gradient of a sample's
mean nll by W is `G = mean_t g_t h_t^T`. G is V x D and is never formed (METHODS: DONOD, closed form).

Notable choices:
- `p_y - 1` is `expm1(-nll)`, not a subtraction: a confident token keeps its relative precision;
- rows are shifted by their maximum before anything else, so nll and entropy near zero stay accurate;
- everything after the matrix product is fp32, whatever the model's dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scorers.models.products import widened
from scorers.signals.softmax import softmax

PROJECTION_SEED = 20170329
PROJECTION_SHAPE = (32, 16)
"""(k1, k2): dimensions kept of the vocabulary side and of the hidden side."""


@dataclass(frozen=True, slots=True)
class Head:
    """The output head of a causal language model: weight (V, D), bias (V) or None, and what follows them."""

    weight: Tensor
    bias: Tensor | None
    scale: float
    softcap: float | None
    tied: bool

    @classmethod
    def of(cls, model: Any) -> Head:
        """Read the head of a transformers causal LM. Whether it was read right is for `forward.verify`."""
        layer: nn.Linear = model.get_output_embeddings()
        config = model.config.get_text_config()
        scale = float(getattr(config, "logit_scale", None) or 1.0)
        scale /= float(getattr(config, "logits_scaling", None) or 1.0)
        softcap = getattr(config, "final_logit_softcapping", None)
        embedding = model.get_input_embeddings()
        return cls(
            weight=layer.weight.detach(),
            bias=None if layer.bias is None else layer.bias.detach(),
            scale=scale,
            softcap=None if softcap is None else float(softcap),
            tied=embedding.weight.data_ptr() == layer.weight.data_ptr(),
        )

    def norm(self) -> float:
        """||W||_F, summed in fp64."""
        blocks = torch.split(self.weight, 4096)
        return float(np.sqrt(sum(float(b.double().square().sum()) for b in blocks)))

    def raw(self, hidden: Tensor, columns: slice = slice(None)) -> Tensor:
        """`u = h W^T` in fp32: hidden (R, D) -> (R, V), or only the vocabulary `columns`."""
        return widened(hidden, self.weight[columns])

    def logits(self, raw: Tensor, columns: slice = slice(None)) -> Tensor:
        """`z` of `u`, as a new tensor unless they are equal."""
        z = raw
        if self.scale != 1.0:
            z = z * self.scale
        if self.bias is not None:
            z = z + self.bias[columns].float()
        if self.softcap is not None:
            z = torch.tanh(z / self.softcap) * self.softcap
        return z

    def through_logits(self, a: Tensor, raw: Tensor, columns: slice = slice(None)) -> Tensor:
        """`a * dz/du`, given `u`."""
        if self.scale != 1.0:
            a = a * self.scale
        if self.softcap is not None:
            a = a * (1 - (self.logits(raw, columns) / self.softcap).square())
        return a

    @property
    def plain(self) -> bool:
        """Whether z is u itself."""
        return self.scale == 1.0 and self.bias is None and self.softcap is None


@dataclass(frozen=True, slots=True)
class Projection:
    """Two-sided Rademacher projection of G, scaled so that inner products are unbiased (METHODS: DEALRec).

    vocabulary: (k1, V), hidden: (k2, D). Made by numpy's Philox from a fixed seed: the same on every machine.
    """

    vocabulary: Tensor
    hidden: Tensor

    @classmethod
    def build(cls, head: Head, shape: tuple[int, int] = PROJECTION_SHAPE) -> Projection:
        rng = np.random.Generator(np.random.Philox(PROJECTION_SEED))
        sides = []
        for k, width in zip(shape, head.weight.shape, strict=True):
            signs = rng.integers(0, 2, (k, width), dtype=np.int8).astype(np.float32) * 2 - 1
            sides.append(torch.from_numpy(signs / np.sqrt(np.float32(k))).to(head.weight.device))
        return cls(*sides)


@dataclass(frozen=True, slots=True)
class Residuals:
    """Per-token readings of R positions: (R) fp32 each."""

    nll: Tensor
    entropy: Tensor
    el2n: Tensor
    top1: Tensor
    dot: Tensor
    """`g . u`: this token's share of <W, G>."""
    shift: Tensor
    """The row's largest logit."""
    total: Tensor
    """Sum of exp(z - shift)."""
    g: Tensor
    """(R, V), the gradient of each token's nll by its `u`, of the dtype asked for."""


def residuals(head: Head, hidden: Tensor, targets: Tensor, dtype: torch.dtype = torch.float32) -> Residuals:
    """Distributions at R positions: hidden (R, D), targets (R) token ids, and the dtype of `g`."""
    raw = head.raw(hidden)  # (R, V)
    z = head.logits(raw)
    at_target = z.gather(-1, targets[:, None])[:, 0]
    found = softmax(z, targets, dtype if head.plain else torch.float32)
    log_total = found.total.log()
    nll = log_total - (at_target - found.shift)
    entropy = log_total - found.weighted / found.total
    pull = torch.expm1(-nll)  # p_y - 1
    el2n = torch.sqrt(found.squares / found.total.square() + pull.square())
    a = found.p.scatter_(-1, targets[:, None], pull.to(found.p.dtype)[:, None])
    top1 = at_target >= found.shift
    if head.plain:
        return Residuals(nll, entropy, el2n, top1, nll - entropy, found.shift, found.total, a)
    g = head.through_logits(a, raw)
    return Residuals(nll, entropy, el2n, top1, (g * raw).sum(-1), found.shift, found.total, g.to(dtype))
