"""The faster products of a CPU say what torch's own say, and stay out of the way of gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from scorers.models import products
from tests import proxies


@pytest.mark.parametrize("family", ["llama-tied", "gpt2", "phi-head-bias"])
def test_a_model_with_faster_products_has_the_same_states(family: str) -> None:
    model = proxies.build(family)
    faster = copy.deepcopy(model)
    products.speed_up(faster)
    layers = [m for m in faster.modules() if isinstance(m, products.Linear | products.TransposedLinear)]
    assert len(layers) >= 8, "the layers of the model must have been found"
    tokens = torch.from_numpy(proxies.multi_turn().input_ids.astype("int64"))[None]
    with torch.inference_mode():
        expected, found = (m(input_ids=tokens, use_cache=False).logits for m in (model, faster))
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("bias", [True, False])
def test_a_product_equals_its_fp64_value(bias: bool) -> None:
    torch.manual_seed(3)
    x, weight = torch.randn(3, 7, 1000), torch.randn(50, 2000)[:, ::2]
    added = torch.randn(50) if bias else None
    expected = nn.functional.linear(x.double(), weight.double(), None if added is None else added.double())
    with torch.inference_mode():
        found = products.linear(x, weight, added)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_gradients_flow_through_faster_layers_as_through_torchs_own() -> None:
    torch.manual_seed(3)
    layer = nn.Linear(6, 4)
    faster = copy.deepcopy(layer)
    products.speed_up(faster)
    x = torch.randn(5, 6)
    for module in (layer, faster):
        module(x).square().sum().backward()
    assert layer.weight.grad is not None
    assert faster.weight.grad is not None
    assert torch.allclose(faster.weight.grad, layer.weight.grad)


def test_half_precision_keeps_its_dtype() -> None:
    x, weight = torch.randn(3, 8).bfloat16(), torch.randn(5, 8).bfloat16()
    with torch.inference_mode():
        assert torch.equal(products.linear(x, weight), nn.functional.linear(x, weight))
