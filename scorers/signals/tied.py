"""The exact gradient of a head that shares its weight with the input embedding.

A tied weight W gets gradient from both of its uses. With `e_s` the gradient of the sample's mean nll by the
looked-up row `W[x_s]` at position s, and `g_t`, `h_t` as in `head`:

    ||G_tied||^2 = ||G||^2 + sum_{s,s'} [x_s = x_s'] e_s.e_s' + (2/|T|) sum_{t,s} g_t[x_s] (h_t . e_s)
    <W, G_tied>  = <W, G> + sum_s W[x_s].e_s

The token that the embedding calls its padding gets no gradient there, as in a real step: torch leaves it
out, and in many models the end-of-turn token is that token.

The vocabulary-sized part of the graph is never recorded: `d nll_t / d h_t = W^T g_t` is known, so the
backward pass starts at the final hidden states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scorers.signals.backward import run_from
from scorers.signals.head import Head, residuals


def tied_terms(
    model: Any,
    head: Head,
    input_ids: Tensor,
    where: tuple[Tensor, Tensor],
    targets: Tensor,
    lengths: Sequence[int],
    chunk_rows: int,
) -> tuple[Tensor, Tensor]:
    """What tying adds to (||G||^2, <W, G>) of each sample: two (n) fp64 tensors on the CPU.

    input_ids (B, L) right-padded; `where` = (sample, position) of the R states that predict `targets`.
    """
    embedding = model.get_input_embeddings()
    hidden, delta, _ = run_from(model, embedding, input_ids, where)
    sample_of, _ = where
    count = torch.tensor(lengths, device=hidden.device, dtype=torch.float32)
    by_state = torch.empty(hidden.shape, device=hidden.device)  # d loss / d h, (R, D)
    at_inputs = torch.empty(len(targets), input_ids.shape[1], device=hidden.device)  # g_t[x_s], (R, L)
    with torch.no_grad():
        weight = head.weight.float()
        for low in range(0, len(targets), chunk_rows):
            rows = slice(low, low + chunk_rows)
            g = residuals(head, hidden[rows], targets[rows]).g
            by_state[rows] = g @ weight / count[sample_of[rows], None]
            at_inputs[rows] = g.gather(1, input_ids[sample_of[rows]])
    (e,) = torch.autograd.grad(hidden, delta, by_state.to(hidden.dtype))
    with torch.no_grad():
        e = e.float() * _lookup_scale(embedding)  # (B, L, D)
        if embedding.padding_idx is not None:
            e[input_ids == embedding.padding_idx] = 0
        norm2 = torch.zeros(len(lengths), dtype=torch.float64)
        dot = torch.zeros(len(lengths), dtype=torch.float64)
        start = 0
        for i, length in enumerate(lengths):
            rows = slice(start, start + length)
            start += length
            tokens, index = torch.unique(input_ids[i], return_inverse=True)
            by_token = torch.zeros(len(tokens), e.shape[-1], device=e.device).index_add_(0, index, e[i])
            cross = (at_inputs[rows] * (hidden[rows].float() @ e[i].T)).sum(dtype=torch.float64)
            norm2[i] = by_token.square().sum(dtype=torch.float64) + 2 / length * cross
            dot[i] = (weight[tokens] * by_token).sum(dtype=torch.float64)
    return norm2, dot


def _lookup_scale(embedding: Any) -> float:
    """c of an embedding that looks up `c * W[x]` (Gemma multiplies by sqrt(D)), read off its longest row."""
    weight = embedding.weight
    token = torch.linalg.vector_norm(weight.float(), dim=1).argmax()
    row = weight[token].double()
    return float(embedding(token[None])[0].double() @ row / (row @ row))
