"""Which samples to calibrate a model's compression with: those after which it has changed least.

Compression methods look at a small batch of samples to decide what a model can do without, and the batch
matters. NIRVANA (arXiv 2509.14230) compresses with each candidate batch and keeps the one that leaves the
smallest KL(original || compressed) on samples that are in no candidate.

Notable choices:
- the compression is Wanda's (arXiv 2306.11695), which reads activations and needs no training: for each
  output of a linear layer the weights of the smallest |weight| * ||input|| become zero. NIRVANA's own cuts
  whole heads and neurons by gradients; it is the batches that are compared, all by the same yardstick;
- input norms are those of the original model, from one pass over the batch. Wanda's code goes block by block
  and lets later blocks see the output of pruned ones, at one pass more for every block;
- the output head and the embeddings stay whole, as in both papers. The original's distributions are thus kept
  as hidden states, V / D times smaller;
- divergence is the mean over held-out response tokens, in nats over the full vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from scorers.shares import tolerant_floor
from scorers.signals.forward import LoadedProxy, TokenisedSample, backbone
from scorers.signals.head import Head

SPARSITY = 0.5
"""Wanda's, and a share that most papers on pruning report."""

_ROWS = 256  # positions whose full distributions exist at a time


def divergences(
    proxy: LoadedProxy,
    candidates: Sequence[Sequence[TokenisedSample]],
    held_out: Sequence[TokenisedSample],
    *,
    sparsity: float = SPARSITY,
) -> Iterator[float]:
    """Compress with each candidate batch in turn and measure on `held_out` what that changed.

    sparsity: share of each layer's weights that compression zeroes. The model's weights are changed on the
    way and restored to the last bit, also after an error. One pass over each candidate, and one over the
    held-out samples for each candidate and one more.

    Raises ValueError when there is no candidate, one is empty, nothing is held out, a held-out sample is in a
    candidate, sparsity is not between 0 and 1, or the model has no linear layers.
    """
    if not 0 < sparsity < 1:
        raise ValueError(f"sparsity is {sparsity!r}: allowed is a number over 0 and under 1")
    if not candidates or not all(len(batch) for batch in candidates):
        raise ValueError("there is no candidate batch, or an empty one")
    if not held_out:
        raise ValueError("no samples are held out to measure the divergence on")
    test = {sample.input_ids.tobytes(): i for i, sample in enumerate(held_out)}
    for number, batch in enumerate(candidates):
        for sample in batch:
            if (same := test.get(sample.input_ids.tobytes())) is not None:
                raise ValueError(f"held-out sample {same} is in candidate {number} too; hold out others")
    head = Head.of(proxy.model)
    layers = linear_layers(proxy.model)
    with torch.inference_mode():
        original = [_states(proxy, sample) for sample in held_out]
    for batch in candidates:
        with torch.inference_mode(), pruned(layers, input_norms(proxy, layers, batch), sparsity):
            found = _divergence(proxy, head, held_out, original)
        yield found


def linear_layers(model: Any) -> dict[str, nn.Module]:
    """The linear layers below the output head, by name. Raises ValueError when there are none."""
    head = model.get_output_embeddings()
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
    if not found:
        raise ValueError(f"{type(model).__name__} has no linear layers to compress")
    return found


def input_norms(
    proxy: LoadedProxy, layers: Mapping[str, nn.Module], batch: Sequence[TokenisedSample]
) -> dict[str, Tensor]:
    """||X_j|| of each layer's inputs over all positions of the batch, fp64 (inputs,), one pass a sample."""
    squares: dict[str, Tensor] = {}

    def record(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found = inputs[0].flatten(0, -2).double().square().sum(0)
            squares[name] = squares[name] + found if name in squares else found

        return hook

    handles = [layer.register_forward_pre_hook(record(name)) for name, layer in layers.items()]
    try:
        for sample in batch:
            backbone(proxy.model, _ids(proxy, sample))
    finally:
        for handle in handles:
            handle.remove()
    return {name: total.sqrt() for name, total in squares.items()}


@contextmanager
def pruned(layers: Mapping[str, nn.Module], norms: Mapping[str, Tensor], sparsity: float) -> Iterator[None]:
    """Zero the floor(sparsity * inputs) least important weights of each output, until the block is left.

    Ties go to the earlier input. Layers that no input reached stay whole.
    """
    before: list[tuple[Tensor, Tensor]] = []
    try:
        for name, norm in norms.items():
            weight: Tensor = layers[name].weight.data  # type: ignore[assignment]
            before.append((weight, weight.clone()))
            by_output = weight.T if isinstance(layers[name], Conv1D) else weight  # (outputs, inputs)
            importance = by_output.double().abs() * norm
            least = importance.argsort(dim=1, stable=True)[:, : tolerant_floor(sparsity * by_output.shape[1])]
            by_output.scatter_(1, least, 0)
        yield
    finally:
        for weight, original in before:
            weight.copy_(original)


def _ids(proxy: LoadedProxy, sample: TokenisedSample) -> Tensor:
    """The sample's tokens (1, L) up to the last one that predicts a response token."""
    ids = sample.input_ids[: int(sample.position[-1])].astype(np.int64)
    return torch.from_numpy(ids).to(proxy.device)[None]


def _states(proxy: LoadedProxy, sample: TokenisedSample) -> Tensor:
    """Hidden states (T, D) that predict the response tokens."""
    predicts = torch.from_numpy(sample.position.astype(np.int64) - 1).to(proxy.device)
    return backbone(proxy.model, _ids(proxy, sample))[0, predicts]


def _divergence(
    proxy: LoadedProxy, head: Head, held_out: Sequence[TokenisedSample], original: Sequence[Tensor]
) -> float:
    """Mean over the held-out response tokens of KL(original || the model as it is now), nats."""
    total, count = 0.0, 0
    for sample, states in zip(held_out, original, strict=True):
        for p, q in zip(torch.split(states, _ROWS), torch.split(_states(proxy, sample), _ROWS), strict=True):
            log_p = head.logits(head.raw(p)).double().log_softmax(-1)
            log_q = head.logits(head.raw(q)).double().log_softmax(-1)
            total += float((log_p.exp() * (log_p - log_q)).sum())
        count += len(states)
    return total / count
