"""Calibration batches on a random model: pruning against loops, divergence against whole distributions."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from scorers.signals.calibration_kl import divergences, input_norms, linear_layers, pruned
from tests import proxies

CPU = torch.device("cpu")


def proxy(family: str) -> proxies.Proxy:
    return proxies.Proxy(proxies.build(family), CPU)


def batch(count: int, seed: int) -> list[proxies.Sample]:
    return proxies.samples([(5, 8)] * count, seed)


def slow_compressed(model: Any, samples: list[proxies.Sample], sparsity: float) -> Any:
    """A copy of the model, its weights zeroed one output at a time."""
    inputs: dict[str, list[torch.Tensor]] = {}
    handles = []
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            handles.append(
                module.register_forward_pre_hook(
                    lambda _, given, name=name: inputs.setdefault(name, []).extend(
                        given[0].reshape(-1, given[0].shape[-1])
                    )
                )
            )
    for sample in samples:
        model(torch.tensor(sample.input_ids[:-1].astype(np.int64))[None])
    for handle in handles:
        handle.remove()
    compressed = copy.deepcopy(model)
    modules = dict(compressed.named_modules())
    for name, rows in inputs.items():
        norm = torch.stack(rows).double().norm(dim=0)
        weight = modules[name].weight.data
        by_output = weight.T if isinstance(modules[name], Conv1D) else weight
        for output in by_output:
            worth = [abs(w) * n for w, n in zip(output.tolist(), norm.tolist(), strict=True)]
            for i in sorted(range(len(worth)), key=lambda i: worth[i])[: int(sparsity * len(worth))]:
                output[i] = 0
    return compressed


def slow_divergence(model: Any, compressed: Any, held_out: list[proxies.Sample]) -> float:
    found = []
    for sample in held_out:
        ids = torch.tensor(sample.input_ids.astype(np.int64))[None]
        p, q = (m(ids).logits[0].double().softmax(-1) for m in (model, compressed))
        found += [float((p[t - 1] * (p[t - 1] / q[t - 1]).log()).sum()) for t in sample.position]
    return float(np.mean(found))


@pytest.mark.parametrize("family", ["llama-tied", "gpt2", "gemma2-softcap"])
def test_each_divergence_is_that_of_a_model_compressed_by_loops(family: str) -> None:
    loaded = proxy(family)
    candidates, held_out = [batch(3, 1), batch(2, 2)], [*batch(2, 3), proxies.multi_turn()]
    before = {name: weight.clone() for name, weight in loaded.model.state_dict().items()}
    with torch.no_grad():
        expected = [
            slow_divergence(loaded.model, slow_compressed(loaded.model, each, 0.4), held_out)
            for each in candidates
        ]
    found = list(divergences(loaded, candidates, held_out, sparsity=0.4))
    assert found == pytest.approx(expected, rel=1e-4)
    assert min(found) > 0.001
    assert all(torch.equal(weight, before[name]) for name, weight in loaded.model.state_dict().items())


def test_data_like_the_held_out_samples_calibrate_better_than_other_data() -> None:
    loaded = proxy("llama-untied")
    rng = np.random.default_rng(5)

    def from_tokens(low: int, high: int) -> list[proxies.Sample]:
        ids = rng.integers(low, high, (12, 30)).astype(np.int32)
        return [proxies.Sample(row, np.arange(4, 30, dtype=np.int32)) for row in ids]

    alike, other, held_out = from_tokens(3, 23), from_tokens(100, 120), from_tokens(3, 23)
    of_other, of_alike = divergences(loaded, [other, alike], held_out, sparsity=0.6)
    assert of_alike < of_other


def test_weights_come_back_after_an_error_and_the_embeddings_are_never_touched() -> None:
    loaded = proxy("llama-tied")
    layers = linear_layers(loaded.model)
    assert not any("embed" in name or "lm_head" in name for name in layers)
    before = {name: layer.weight.clone() for name, layer in layers.items()}  # type: ignore[operator]
    norms = input_norms(loaded, layers, batch(2, 1))

    def break_off() -> None:
        with pruned(layers, norms, 0.5):
            for layer in layers.values():
                zeros = (layer.weight == 0).sum(dim=1)
                assert (zeros == layer.weight.shape[1] // 2).all()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert all(torch.equal(layer.weight, before[name]) for name, layer in layers.items())


def test_a_batch_that_is_partly_held_out_is_refused() -> None:
    samples = batch(3, 1)
    with pytest.raises(ValueError, match="held-out sample 0 is in candidate 1 too"):
        next(divergences(proxy("llama-tied"), [batch(2, 9), samples], [samples[1]]))


@pytest.mark.parametrize(
    ("candidates", "held_out", "sparsity", "said"),
    [
        ([], 1, 0.5, "there is no candidate batch"),
        ([1, 0], 1, 0.5, "there is no candidate batch, or an empty one"),
        ([1], 0, 0.5, "no samples are held out"),
        ([1], 1, 1.0, r"sparsity is 1.0: allowed is a number over 0 and under 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    candidates: list[int], held_out: int, sparsity: float, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        next(
            divergences(
                proxy("llama-tied"),
                [batch(n, 1) for n in candidates],
                batch(held_out, 2),
                sparsity=sparsity,
            )
        )
