"""Every signal the slow, obvious way: one sample at a time, fp64, loops, autograd through the whole model."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scorers.signals.head import Projection


@dataclass
class Reference:
    nll: np.ndarray
    entropy: np.ndarray
    el2n: np.ndarray
    top1: np.ndarray
    grad: torch.Tensor
    """G (V, D): gradient of the mean response nll by the output head alone."""
    weight: torch.Tensor
    tied_grad: torch.Tensor | None
    """The same by the shared weight, input embedding included."""
    mean_hidden: np.ndarray
    weighted_hidden: np.ndarray


def double(model: Any) -> Any:
    """A copy of the model in fp64, in which nothing learns."""
    return copy.deepcopy(model).double().requires_grad_(False)


def untie(model: Any) -> Any:
    """A copy whose head is a parameter of its own; the others are those of the model."""
    model = copy.deepcopy(model, {id(each): each for each in model.parameters()})
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    return model


def measure(model64: Any, sample: Any, *, tied: bool = False, left_padding: int = 0) -> Reference:
    """Signals of one sample from an fp64 model, optionally left-padded with a masked prefix."""
    ids = torch.from_numpy(np.concatenate([np.full(left_padding, 2), sample.input_ids]).astype(np.int64))[
        None
    ]
    mask = torch.ones_like(ids)
    mask[:, :left_padding] = 0
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
    }
    positions = torch.from_numpy(sample.position.astype(np.int64)) + left_padding
    targets = ids[0, positions]

    single = untie(model64)
    weight = single.get_output_embeddings().weight.requires_grad_(True)
    said = single(**inputs, output_hidden_states=True)
    logits = said.logits[0, positions - 1]
    log_p = torch.log_softmax(logits, -1)
    nll = -log_p[torch.arange(len(targets)), targets]
    (grad,) = torch.autograd.grad(nll.mean(), weight)
    with torch.no_grad():
        p = log_p.exp()
        entropy = np.array([-(row * row.log()).nan_to_num().sum().item() for row in p])
        onehot = torch.nn.functional.one_hot(targets, p.shape[1])
        el2n = np.array(
            [(row - hot).square().sum().sqrt().item() for row, hot in zip(p, onehot, strict=True)]
        )
        everywhere = said.hidden_states[-1][0]
        states = everywhere[positions - 1]
        weighted = torch.zeros_like(states[0])
        for place, state in enumerate(everywhere[left_padding:], start=1):
            weighted += place * state
        weighted /= sum(range(1, len(sample.input_ids) + 1))

    tied_grad = None
    if tied:
        parameter = model64.get_input_embeddings().weight
        assert parameter is model64.get_output_embeddings().weight, "the reference needs a tied model"
        parameter.requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(model64(**inputs).logits[0, positions - 1], targets)
        (tied_grad,) = torch.autograd.grad(loss, parameter)
        parameter.requires_grad_(False)
    return Reference(
        nll=nll.detach().numpy(),
        entropy=entropy,
        el2n=el2n,
        top1=(p.argmax(-1) == targets).numpy(),
        grad=grad,
        weight=weight.detach(),
        tied_grad=tied_grad,
        mean_hidden=states.mean(0).numpy(),
        weighted_hidden=weighted.numpy(),
    )


def relative(found: Any, expected: Any) -> float:
    """Largest error relative to the largest magnitude of the expected array."""
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    scale = max(float(np.abs(expected).max()), 1e-12)
    return float(np.abs(found - expected).max()) / scale


def errors(found: Any, expected: Reference, projection: Projection) -> dict[str, float]:
    """Relative error of each signal of one measured sample."""
    norm = expected.grad.norm().item()
    dot = (expected.grad * expected.weight).sum().item()
    left, right = projection.vocabulary.double(), projection.hidden.double()
    projected = (left @ expected.grad @ right.T).flatten()
    out = {
        "nll": relative(found.nll, expected.nll),
        "entropy": relative(found.entropy, expected.entropy),
        "el2n": relative(found.el2n, expected.el2n),
        "head_grad_norm": abs(found.head_grad_norm - norm) / norm,
        "head_grad_dot": abs(found.head_grad_dot - dot)
        / max(abs(dot), 1e-3 * norm * expected.weight.norm().item()),
        "head_grad_projection": relative(found.head_grad_projection, projected),
        "mean_hidden": relative(found.mean_hidden, expected.mean_hidden),
        "weighted_hidden": relative(found.weighted_hidden, expected.weighted_hidden),
    }
    if expected.tied_grad is not None and found.tied_grad_norm is not None:
        tied_norm = expected.tied_grad.norm().item()
        tied_dot = (expected.tied_grad * expected.weight).sum().item()
        out["tied_grad_norm"] = abs(found.tied_grad_norm - tied_norm) / tied_norm
        out["tied_grad_dot"] = abs(found.tied_grad_dot - tied_dot) / max(
            abs(tied_dot), 1e-3 * tied_norm * expected.weight.norm().item()
        )
    return out
