"""The output head, read exactly: everything that a token's distribution says, without storing it.

With `u = h W^T` the raw head output, logits are `z = softcap(scale * u + b)`, `p = softmax(z)` and
`a = p - onehot(y)`. The gradient of a token's nll by `u` is `g = a * dz/du`, so the gradient of a sample's
mean nll by W is `G = mean_t g_t h_t^T`. G is V x D and is never formed (METHODS: DONOD, closed form).

Notable choices:
- `p_y - 1` is `expm1(-nll)`, not a subtraction: a confident token keeps its relative precision;
- rows are shifted by their maximum before anything else, so nll and entropy near zero stay accurate;
- `||G||^2` is the Gram form `sum (g_t.g_s)(h_t.h_s)` up to D tokens and `||g^T H||^2` by vocabulary blocks
  above, whichever multiplies less; a sample whose (T, V) does not fit the chunk is recomputed block by block;
- everything after the matrix product is fp32, whatever the model's dtype; per-sample sums are fp64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scorers.models.products import linear

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
        weight = self.weight[columns]
        if hidden.dtype == torch.float32:
            return linear(hidden, weight)
        if hidden.is_cuda and _mm_widens(hidden.device, hidden.dtype):
            return torch.mm(hidden, weight.T, out_dtype=torch.float32)
        return linear(hidden.float(), weight.float())

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

    @property
    def plain(self) -> bool:
        """Whether z is u itself."""
        return self.scale == 1.0 and self.bias is None and self.softcap is None


_WIDENS: dict[tuple[torch.device, torch.dtype], bool] = {}


def _mm_widens(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this build multiplies half-precision matrices straight into fp32."""
    key = (device, dtype)
    if key not in _WIDENS:
        probe = torch.ones(16, 16, device=device, dtype=dtype)
        try:
            torch.mm(probe, probe, out_dtype=torch.float32)
            _WIDENS[key] = True
        except (TypeError, RuntimeError, NotImplementedError):
            _WIDENS[key] = False
    return _WIDENS[key]


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
    """Per-token readings of R positions; `g` (R, V) is the gradient of each token's nll by its `u`."""

    nll: Tensor
    entropy: Tensor
    el2n: Tensor
    top1: Tensor
    dot: Tensor
    """`g . u`: this token's share of <W, G>."""
    g: Tensor
    shift: Tensor
    """The row's largest logit."""
    total: Tensor
    """Sum of exp(z - shift)."""


def residuals(head: Head, hidden: Tensor, targets: Tensor) -> Residuals:
    """Distributions at R positions. hidden (R, D), targets (R) token ids; every result is fp32."""
    raw = head.raw(hidden)  # (R, V)
    z = head.logits(raw)
    shift = z.amax(-1, keepdim=True)
    z = z.sub_(shift) if head.plain else z - shift
    e = z.exp()
    total = e.sum(-1)
    log_total = total.log()
    z_target = z.gather(-1, targets[:, None])[:, 0]
    nll = log_total - z_target
    entropy = log_total - _row_dot(e, z) / total
    a = e.div_(total[:, None])
    a.scatter_(-1, targets[:, None], torch.expm1(-nll)[:, None])
    el2n = torch.linalg.vector_norm(a, dim=-1)
    if head.plain:
        dot, g = nll - entropy, a
    else:
        g = _through_logits(head, a, z + shift)
        dot = _row_dot(g, raw)
    return Residuals(nll, entropy, el2n, z_target >= 0, dot, g, shift[:, 0], total)


def _through_logits(head: Head, a: Tensor, z: Tensor) -> Tensor:
    """`a * dz/du`, given the logits z after the soft cap."""
    if head.scale != 1.0:
        a = a * head.scale
    if head.softcap is not None:
        a = a * (1 - (z / head.softcap).square())
    return a


def _row_dot(x: Tensor, y: Tensor) -> Tensor:
    """Row-wise inner products of two (R, V) tensors without a third one."""
    return torch.bmm(x[:, None, :], y[:, :, None])[:, 0, 0]


@dataclass(frozen=True, slots=True)
class HeadSignals:
    """Readings of n samples with R response positions in all, on the CPU.

    Tokens: nll, entropy, el2n, top1 (R). Samples: grad_norm, grad_dot (n) fp64, projection (n, k1 * k2)
    and mean_hidden (n, D) fp32.
    """

    nll: Tensor
    entropy: Tensor
    el2n: Tensor
    top1: Tensor
    grad_norm: Tensor
    grad_dot: Tensor
    projection: Tensor
    mean_hidden: Tensor


def head_signals(
    head: Head,
    projection: Projection,
    hidden: Tensor,
    targets: Tensor,
    lengths: Sequence[int],
    chunk_rows: int,
) -> HeadSignals:
    """Read the head at every response position of a batch.

    hidden (R, D): the states that predict `targets` (R), sample after sample; `lengths` says how many rows
    each sample has. At most `chunk_rows` rows of (V) logits exist at a time.
    """
    dim = hidden.shape[1]
    device = hidden.device
    sample_of = torch.repeat_interleave(
        torch.arange(len(lengths), device=device), torch.tensor(lengths, device=device)
    )
    count = torch.tensor(lengths, device=device, dtype=torch.float64)
    hidden32 = hidden.float()
    hidden_side = linear(hidden32, projection.hidden)  # (R, k2)
    k1, k2 = projection.vocabulary.shape[0], projection.hidden.shape[0]
    projected = torch.zeros(len(lengths), k1 * k2, device=device)
    norm2 = torch.zeros(len(lengths), device=device, dtype=torch.float64)
    parts: list[Residuals] = []
    for samples, rows in _chunks(lengths, chunk_rows):
        r = residuals(head, hidden[rows], targets[rows])
        vocabulary_side = linear(r.g, projection.vocabulary)  # (r, k1)
        outer = vocabulary_side[:, :, None] * hidden_side[rows][:, None, :]
        projected.index_add_(0, sample_of[rows], outer.flatten(1))
        if not _split(lengths, samples, rows):
            bounds = np.concatenate([[0], np.cumsum([lengths[i] for i in samples])])
            norm2[samples.start : samples.stop] = _norms(r.g, hidden32[rows], bounds, dim)
        parts.append(Residuals(r.nll, r.entropy, r.el2n, r.top1, r.dot, _NOTHING, r.shift, r.total))
    token = {
        name: torch.cat([getattr(p, name) for p in parts])
        for name in ("nll", "entropy", "el2n", "top1", "dot", "shift", "total")
    }
    start = 0
    for i, length in enumerate(lengths):
        if length > chunk_rows:
            rows = slice(start, start + length)
            norm2[i] = _long_norm2(
                head, hidden[rows], targets[rows], {k: v[rows] for k, v in token.items()}, chunk_rows
            )
        start += length
    grad_dot = torch.zeros_like(count).index_add_(0, sample_of, token["dot"].double()) / count
    mean_hidden = torch.zeros(len(lengths), dim, device=device).index_add_(0, sample_of, hidden32)
    inverse = (1 / count).float()[:, None]
    return HeadSignals(
        nll=token["nll"].cpu(),
        entropy=token["entropy"].cpu(),
        el2n=token["el2n"].cpu(),
        top1=token["top1"].cpu(),
        grad_norm=(norm2.sqrt() / count).cpu(),
        grad_dot=grad_dot.cpu(),
        projection=(projected * inverse).cpu(),
        mean_hidden=(mean_hidden * inverse).cpu(),
    )


_NOTHING = torch.empty(0)
_GRAM_PARTS = 16
_GRAM_ROWS = 64


def _chunks(lengths: Sequence[int], limit: int) -> list[tuple[range, slice]]:
    """Runs of whole samples of at most `limit` rows; a longer sample alone, in pieces of `limit`."""
    out: list[tuple[range, slice]] = []
    first = start = rows = 0
    for i, length in enumerate(lengths):
        if rows and rows + length > limit:
            out.append((range(first, i), slice(start, start + rows)))
            first, start, rows = i, start + rows, 0
        if length > limit:
            stop = start + length
            out += [(range(i, i + 1), slice(s, min(s + limit, stop))) for s in range(start, stop, limit)]
            first, start, rows = i + 1, stop, 0
        else:
            rows += length
    if rows:
        out.append((range(first, len(lengths)), slice(start, start + rows)))
    return out


def _split(lengths: Sequence[int], samples: range, rows: slice) -> bool:
    """Whether the chunk holds a piece of one long sample."""
    return len(samples) == 1 and lengths[samples[0]] > rows.stop - rows.start


def _norms(g: Tensor, hidden: Tensor, bounds: np.ndarray, dim: int) -> Tensor:
    """||sum_t g_t h_t^T||^2 of each sample between `bounds`: (n) fp64."""
    out = torch.empty(len(bounds) - 1, dtype=torch.float64, device=g.device)
    for i, (a, b) in enumerate(pairwise(bounds)):
        g_i, h_i = g[a:b], hidden[a:b]
        if b - a <= dim:
            out[i] = _gram_sum(g_i, h_i)
        else:
            out[i] = sum(
                (block.T @ h_i).square().sum(dtype=torch.float64)
                for block in torch.split(g_i, 2 * dim, dim=1)
            )
    return out.clamp_(min=0)


def _gram_sum(g: Tensor, hidden: Tensor) -> Tensor:
    """sum over t, s of (g_t.g_s)(h_t.h_s), fp64. The matrices are symmetric: no pair is multiplied twice."""
    if len(g) <= _GRAM_ROWS:
        return (_gram(g, g) * (hidden @ hidden.T)).sum(dtype=torch.float64)
    half = len(g) // 2
    across = (_gram(g[:half], g[half:]) * (hidden[:half] @ hidden[half:].T)).sum(dtype=torch.float64)
    return _gram_sum(g[:half], hidden[:half]) + _gram_sum(g[half:], hidden[half:]) + 2 * across


def _gram(a: Tensor, b: Tensor) -> Tensor:
    """`a b^T` of (T, V) and (S, V) rows. The sum over V is cut in parallel parts, as BLAS does not."""
    width = a.shape[1] // _GRAM_PARTS
    left, right = (x[:, : width * _GRAM_PARTS].view(len(x), _GRAM_PARTS, width) for x in (a, b))
    rest = width * _GRAM_PARTS
    parts = torch.bmm(left.transpose(0, 1), right.permute(1, 2, 0)).sum(0)  # (16, T, w) (16, w, S)
    return parts + a[:, rest:] @ b[:, rest:].T


def _long_norm2(
    head: Head, hidden: Tensor, targets: Tensor, token: dict[str, Tensor], chunk_rows: int
) -> Tensor:
    """||sum_t g_t h_t^T||^2 of one sample whose (T, V) would not fit: vocabulary block by block.

    The same `chunk_rows * V` elements bound a block of (T, c). Gram form when T <= D.
    """
    length, dim = hidden.shape
    vocabulary = head.weight.shape[0]
    width = max(1, chunk_rows * vocabulary // length)
    hidden32 = hidden.float()
    gram = torch.zeros(length, length, device=hidden.device) if length <= dim else None
    norm2 = torch.zeros((), dtype=torch.float64, device=hidden.device)
    for low in range(0, vocabulary, width):
        columns = slice(low, min(low + width, vocabulary))
        z = head.logits(head.raw(hidden, columns), columns)
        g = (z - token["shift"][:, None]).exp_().div_(token["total"][:, None])
        inside = (targets >= low) & (targets < columns.stop)
        rows = inside.nonzero()[:, 0]
        g[rows, targets[rows] - low] = torch.expm1(-token["nll"][rows])
        g = _through_logits(head, g, z)
        if gram is not None:
            gram += _gram(g, g)
        else:
            norm2 += (g.T @ hidden32).square().sum(dtype=torch.float64)
    if gram is not None:
        norm2 = (gram * (hidden32 @ hidden32.T)).sum(dtype=torch.float64)
    return norm2.clamp(min=0)
