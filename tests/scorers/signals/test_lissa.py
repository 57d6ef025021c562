"""LiSSA against the dense damped inverse of the Hessian of one layer of a tiny model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

from scorers.signals.lissa import Surrogate
from tests import proxies, reference
from tests.whole_lissa import influences, lissa, mean_gradient

CPU = torch.device("cpu")
OUTPUT = "transformer.h.1.attn.c_proj.weight"
SAMPLES = proxies.samples([(4, 6), (3, 9), (8, 2), (5, 5), (2, 12)])


def tiny() -> Any:
    """A model with attention matrices of 8 x 8, in fp64 throughout: Llama's norms would round to fp32."""
    torch.manual_seed(3)
    config = tf.GPT2Config(
        vocab_size=proxies.VOCABULARY,
        n_embd=8,
        n_layer=2,
        n_head=2,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = tf.GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.5)
    return reference.double(model).eval().requires_grad_(False)


def surrogate_of(model: Any, **options: Any) -> Surrogate:
    return Surrogate(proxies.Proxy(model, CPU), SAMPLES, **options)


def slow_loss(model: Any, sample: proxies.Sample) -> torch.Tensor:
    ids = torch.from_numpy(sample.input_ids.astype(np.int64))
    logits = model(input_ids=ids[None]).logits[0]
    losses = [-torch.log_softmax(logits[t - 1], -1)[ids[t]] for t in sample.position.tolist()]
    return torch.stack(losses).mean()


def dense_hessian(model: Any, name: str) -> np.ndarray:
    """Hessian of the mean loss by the named weight, by central differences of gradients."""
    weight = model.get_parameter(name).requires_grad_(True)

    def gradient() -> torch.Tensor:
        loss = torch.stack([slow_loss(model, sample) for sample in SAMPLES]).mean()
        return torch.autograd.grad(loss, weight)[0].flatten().clone()

    columns, step = [], 1e-5
    for k in range(weight.numel()):
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.view(-1)[k] += sign * step
            sides.append(gradient())
            with torch.no_grad():
                weight.view(-1)[k] -= sign * step
        columns.append((sides[0] - sides[1]) / (2 * step))
    weight.requires_grad_(False)
    return torch.stack(columns, 1).numpy()


@pytest.fixture(scope="module")
def hessian() -> np.ndarray:
    return dense_hessian(tiny(), OUTPUT)


def test_losses_and_gradients_are_those_of_the_whole_model() -> None:
    model = tiny()
    with surrogate_of(model) as surrogate:
        for i, sample in enumerate(SAMPLES):
            expected = slow_loss(model, sample)
            assert surrogate.loss(i).item() == pytest.approx(expected.item(), rel=1e-6)
            (gradient,) = torch.autograd.grad(expected, surrogate.weight)
            assert torch.allclose(surrogate.gradient(i), gradient, rtol=1e-4, atol=1e-7)


def test_hessian_times_a_direction_is_the_dense_product(hessian: np.ndarray) -> None:
    with surrogate_of(tiny()) as surrogate:
        direction = torch.randn(surrogate.weight.shape, dtype=torch.float64)
        products = torch.stack([surrogate.curvature(i, direction) for i in range(len(surrogate))])
        found = products.mean(0).flatten().numpy()
    assert reference.relative(found, hessian @ direction.flatten().numpy()) < 1e-4


def test_with_the_mean_hessian_the_sum_is_the_dense_damped_inverse(
    hessian: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    with surrogate_of(tiny()) as surrogate:
        v = mean_gradient(surrogate)
        exact = torch.from_numpy(hessian)
        monkeypatch.setattr(Surrogate, "curvature", lambda self, i, h: (exact @ h.flatten()).view_as(h))
        found = lissa(surrogate, v).flatten().numpy()
    damped = hessian + 0.01 * 25 * np.eye(len(hessian))
    expected = np.linalg.solve(damped, v.flatten().numpy())
    assert reference.relative(found, expected) < 1e-5


@pytest.mark.slow
def test_drawing_one_sample_a_step_comes_near_the_dense_damped_inverse(hessian: np.ndarray) -> None:
    with surrogate_of(tiny()) as surrogate:
        v = mean_gradient(surrogate)
        u = lissa(surrogate, v, steps=400)
        found = influences(surrogate, u)
        gradients = np.stack([surrogate.gradient(i).flatten().numpy() for i in range(len(surrogate))])
    dense = np.linalg.solve(hessian + 0.25 * np.eye(len(hessian)), v.flatten().numpy())
    # the last draws leave noise in u however long it runs
    assert reference.relative(u.flatten().numpy(), dense) < 0.25
    assert np.corrcoef(u.flatten().numpy(), dense)[0, 1] > 0.98
    assert np.corrcoef(found, gradients @ dense)[0, 1] > 0.98


def test_a_sum_that_diverges_is_an_error() -> None:
    with surrogate_of(tiny()) as surrogate:
        v = mean_gradient(surrogate)
        with pytest.raises(ValueError, match=r"LiSSA diverged at step \d+: .* raise scale"):
            lissa(surrogate, v, scale=1e-4)


@pytest.mark.parametrize("family", proxies.CONFIGS)
def test_the_default_layer_is_the_last_attention_output(family: str) -> None:
    with surrogate_of(proxies.build(family)) as surrogate:
        assert ".1." in surrogate.name
        assert surrogate.name.split(".")[-2] in ("o_proj", "c_proj", "dense")
        assert surrogate.curvature(0, torch.ones_like(surrogate.weight)).isfinite().all()
    assert not surrogate.weight.requires_grad


def test_a_layer_can_be_named_and_one_that_is_not_there_is_refused() -> None:
    with surrogate_of(tiny(), weight="transformer.h.0.mlp.c_fc.weight") as surrogate:
        assert surrogate.gradient(0).shape == (8, 32)
    with pytest.raises(ValueError, match=r"no weight 'o_proj'; .* transformer.h.1.attn.c_proj.weight"):
        surrogate_of(tiny(), weight="o_proj")
