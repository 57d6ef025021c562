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

import numpy as np
import torch
from torch import Tensor

from scorers.signals.backward import run_from
from scorers.signals.head import Head, residuals
from scorers.signals.transfer import onto


def tied_terms(
    model: Any,
    head: Head,
    input_ids: Tensor,
    where: tuple[Tensor, Tensor],
    targets: Tensor,
    lengths: Sequence[int],
    chunk_rows: int,
) -> tuple[Tensor, Tensor]:
    """What tying adds to (||G||^2, <W, G>) of each sample: two (n) fp64 tensors.

    input_ids (B, L) right-padded; `where` = (sample, position) of the R states that predict `targets`.
    """
    embedding = model.get_input_embeddings()
    hidden, delta, _ = run_from(model, embedding, input_ids, where)
    sample_of, _ = where
    count = onto(np.asarray(lengths, dtype=np.float32), hidden.device)
    in_sample = onto(np.concatenate([np.arange(length) for length in lengths]), hidden.device)
    by_state = torch.empty(hidden.shape, device=hidden.device)  # d loss / d h, (R, D)
    # g_t[x_s] and h_t of each sample, padded with zeros to the T of the longest
    at_inputs = torch.zeros(len(lengths), max(lengths), input_ids.shape[1], device=hidden.device)
    states = torch.zeros(len(lengths), max(lengths), hidden.shape[1], device=hidden.device)
    with torch.no_grad():
        weight = head.weight.float()
        for low in range(0, len(targets), chunk_rows):
            rows = slice(low, low + chunk_rows)
            g = residuals(head, hidden[rows], targets[rows]).g
            by_state[rows] = g @ weight / count[sample_of[rows], None]
            at_inputs[sample_of[rows], in_sample[rows]] = g.gather(1, input_ids[sample_of[rows]])
        states[sample_of, in_sample] = hidden.float()
    (e,) = torch.autograd.grad(hidden, delta, by_state.to(hidden.dtype))
    with torch.no_grad():
        e = e.float() * _lookup_scale(embedding)  # (B, L, D)
        if embedding.padding_idx is not None:
            e.masked_fill_((input_ids == embedding.padding_idx)[..., None], 0)
        by_token = torch.zeros_like(e).scatter_add_(1, _alike(input_ids)[..., None].expand_as(e), e)
        cross = (torch.bmm(at_inputs.mT, states) * e).sum((1, 2), dtype=torch.float64)
        norm2 = by_token.square().sum((1, 2), dtype=torch.float64) + 2 / count.double() * cross
        dot = (weight[input_ids] * e).sum((1, 2), dtype=torch.float64)
    return norm2, dot


def _alike(input_ids: Tensor) -> Tensor:
    """A number for each position of each row (B, L), under L, that equal tokens of a row have in common."""
    ordered, at = input_ids.sort(dim=1)
    differs = torch.nn.functional.pad(ordered[:, 1:] != ordered[:, :-1], (1, 0))
    return torch.empty_like(at).scatter_(1, at, differs.cumsum(1))


def _lookup_scale(embedding: Any) -> float:
    """c of an embedding that looks up `c * W[x]` (Gemma multiplies by sqrt(D)), read off its longest row."""
    weight = embedding.weight
    token = torch.linalg.vector_norm(weight.float(), dim=1).argmax()
    row = weight[token].double()
    return float(embedding(token[None])[0].double() @ row / (row @ row))
