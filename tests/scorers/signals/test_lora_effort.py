"""LoRA effort against PEFT and autograd through the whole model in fp64."""

from __future__ import annotations

from typing import Any

import numpy as np
import peft
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from scorers.signals.head import Head
from scorers.signals.lora_effort import ALPHA, RANK, FreshAdapter, lora_effort
from tests import proxies, reference

FAMILIES = [family for family in proxies.CONFIGS if family != "gpt2"]


def efforts(model: Any, samples: list[proxies.Sample], chunk_rows: int = 64) -> np.ndarray:
    """All samples as one batch."""
    rows = [torch.from_numpy(s.input_ids[: int(s.position[-1])].astype(np.int64)) for s in samples]
    lengths = [len(s.position) for s in samples]
    where = (
        torch.from_numpy(np.repeat(np.arange(len(samples)), lengths)),
        torch.from_numpy(np.concatenate([s.position for s in samples]).astype(np.int64) - 1),
    )
    targets = torch.from_numpy(np.concatenate([s.input_ids[s.position] for s in samples]).astype(np.int64))
    adapter = FreshAdapter.of(model)
    found = lora_effort(
        model,
        Head.of(model),
        adapter,
        pad_sequence(rows, batch_first=True),
        where,
        targets,
        lengths,
        chunk_rows,
    )
    return found.numpy()


def with_peft(model: Any, samples: list[proxies.Sample]) -> list[float]:
    """The norm that PEFT's adapters on q and v get by autograd, one sample at a time, in fp64."""
    ours = FreshAdapter.of(model).down
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["q_proj", "v_proj"])
    whole = peft.inject_adapter_in_model(config, reference.double(model))
    adapters = {name: p for name, p in whole.named_parameters() if ".v_proj.lora_" in name}
    down, up = [adapters[name] for name in adapters][-2:]
    down.data.copy_(ours)
    others = [p for name, p in whole.named_parameters() if "lora_A" in name]
    norms = []
    for sample in samples:
        ids = torch.from_numpy(sample.input_ids.astype(np.int64))[None]
        where = torch.from_numpy(sample.position.astype(np.int64))
        logits = whole(input_ids=ids).logits[0, where - 1]
        loss = torch.nn.functional.cross_entropy(logits, ids[0, where])
        gradient, *nothing = torch.autograd.grad(loss, [up, *others])
        assert all(not grad.any() for grad in nothing), "a fresh lora_A has no gradient"
        norms.append(gradient.norm().item())
    return norms


@pytest.mark.parametrize("family", FAMILIES)
def test_effort_is_the_gradient_norm_that_peft_and_autograd_give(family: str) -> None:
    model = proxies.build(family)
    samples = [*proxies.samples(proxies.VARIED), proxies.multi_turn()]
    assert efforts(model, samples).tolist() == pytest.approx(with_peft(model, samples), rel=1e-4)


def test_the_batch_that_a_sample_is_in_changes_nothing() -> None:
    model = proxies.build("llama-tied")
    samples = [*proxies.samples(proxies.VARIED), proxies.multi_turn()]
    together = efforts(model, samples)
    alone = [efforts(model, [sample], chunk_rows=5)[0] for sample in samples]
    assert together == pytest.approx(alone, rel=1e-5)
    assert efforts(model, samples[::-1])[::-1] == pytest.approx(together, rel=1e-5)


def test_the_model_is_left_as_it_was() -> None:
    model = proxies.build("qwen2")
    before = {name: p.clone() for name, p in model.state_dict().items()}
    efforts(model, proxies.samples([(3, 4)]))
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_a_fresh_adapter_is_drawn_as_peft_draws_it_and_always_the_same() -> None:
    model = proxies.build("llama-tied")
    first, second = FreshAdapter.of(model), FreshAdapter.of(model)
    assert torch.equal(first.down, second.down)
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["v_proj"])
    whole = peft.inject_adapter_in_model(config, reference.double(model))
    theirs = [p for name, p in whole.named_parameters() if "lora_A" in name][-1]
    bound = first.v_proj.in_features**-0.5
    assert first.down.shape == theirs.shape
    assert first.down.abs().max() <= bound
    assert theirs.abs().max() <= bound
    assert first.down.std().item() == pytest.approx(theirs.std().item(), rel=0.2)


def test_a_model_without_v_proj_is_refused() -> None:
    with pytest.raises(ValueError, match="GPT2LMHeadModel has no layer called v_proj"):
        FreshAdapter.of(proxies.build("gpt2"))
