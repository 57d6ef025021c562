"""DEALRec's influence as published: LiSSA on one late layer of a small surrogate model (arXiv 2401.17197).

The influence of removing sample s on a risk is `I(s) = u . grad l(s)`, u the inverse Hessian times the
gradient v of that risk, all by one weight matrix. LiSSA (arXiv 1602.03943) finds u without the Hessian,

    h <- v + (1 - damp) h - Hess_j h / scale,     j one random sample a step,

which settles around `h = scale (Hess + damp * scale * 1)^-1 v`; u is that divided by `scale`.

Notable choices:
- the authors keep the factor `scale`, which no ranking notices; without it u is a damped inverse;
- the layer is by default the last block's attention output, as theirs is;
- only that layer and what follows it are recorded, and attention takes its plain kernel there, the fast ones
  having no second derivative;
- a sum that grows past all bounds (a curvature above twice `scale`) is an error, never a score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scorers.signals.forward import LoadedProxy, TokenisedSample


class Surrogate:
    """The loss of single samples as a function of one weight of a model, the others fixed.

    weight: name of the parameter; by default the last matrix of an attention layer, its output projection.
    Gradients are recorded by this weight alone until `close`, or the end of a `with` block.
    Raises ValueError for a name that the model does not have.
    """

    def __init__(
        self, proxy: LoadedProxy, samples: Sequence[TokenisedSample], weight: str | None = None
    ) -> None:
        self._model = proxy.model
        parameters = dict(proxy.model.named_parameters())
        late = [name for name, p in parameters.items() if "attn" in name and p.dim() == 2]
        name = weight or (late[-1] if late else "")
        if name not in parameters:
            known = ", ".join(late[-4:]) or "none that looks like attention"
            raise ValueError(f"the model has no weight {name!r}; some that it has: {known}")
        self.name = name
        self.weight: Tensor = parameters[name]
        self._samples = [
            (
                torch.from_numpy(s.input_ids[: int(s.position[-1]) + 1].astype(np.int64)).to(proxy.device),
                torch.from_numpy(s.position.astype(np.int64)).to(proxy.device),
            )
            for s in samples
        ]
        self.weight.requires_grad_(True)

    def __enter__(self) -> Surrogate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the model without gradients, as it came."""
        self.weight.requires_grad_(False)

    def __len__(self) -> int:
        return len(self._samples)

    def loss(self, i: int) -> Tensor:
        """Mean response nll of sample i, differentiable twice by the weight."""
        ids, position = self._samples[i]
        with sdpa_kernel(SDPBackend.MATH):
            # no position that predicts nothing goes through the head
            logits = self._model(input_ids=ids[None], use_cache=False, logits_to_keep=position - 1).logits[0]
        return torch.nn.functional.cross_entropy(logits.float(), ids[position])

    def gradient(self, i: int) -> Tensor:
        """Gradient of sample i's loss, shaped like the weight."""
        (gradient,) = torch.autograd.grad(self.loss(i), self.weight)
        return gradient

    def curvature(self, i: int, direction: Tensor) -> Tensor:
        """The Hessian of sample i's loss times a direction, both shaped like the weight."""
        (gradient,) = torch.autograd.grad(self.loss(i), self.weight, create_graph=True)
        (product,) = torch.autograd.grad((gradient * direction).sum(), self.weight)
        return product


def step(
    surrogate: Surrogate, v: Tensor, estimate: Tensor, i: int, *, damp: float, scale: float, number: int
) -> Tensor:
    """The estimate after step `number`, from 1 on, with sample i; the first starts from v.

    Raises ValueError when the sum has diverged.
    """
    estimate = v + (1 - damp) * estimate - surrogate.curvature(i, estimate) / scale
    if not torch.isfinite(estimate).all():
        raise ValueError(
            f"LiSSA diverged at step {number}: the loss curves more than twice its scale, which is "
            f"{scale:g}; raise scale, or damp"
        )
    return estimate


def influence(surrogate: Surrogate, i: int, u: Tensor) -> float:
    """Influence of removing sample i: its gradient's inner product with u."""
    return float((surrogate.gradient(i) * u).sum(dtype=torch.float64))
