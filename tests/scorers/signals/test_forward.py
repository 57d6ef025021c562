"""Every signal of the one pass against an fp64, batch-1, autograd reference, on several architectures."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scorers.methods.donod import don_nod
from scorers.models.proxy import load
from scorers.signals import norms, readings
from scorers.signals.forward import ForwardPass, Measured, MeasureError, ProxyMismatchError, token_batches
from scorers.signals.head import PROJECTION_SHAPE
from tests import proxies, reference

CPU = torch.device("cpu")
FAMILIES = tuple(proxies.CONFIGS)
TOLERANCE = 1e-5


def forward(family: str, **options: object) -> ForwardPass:
    return ForwardPass(proxies.Proxy(proxies.build(family), CPU), **options)  # type: ignore[arg-type]


def measured(run: ForwardPass, samples: list[proxies.Sample]) -> list[Measured]:
    found = dict(run.measure(samples))
    assert sorted(found) == list(range(len(samples)))
    for result in found.values():
        assert isinstance(result, Measured), result
    return [found[i] for i in range(len(samples))]  # type: ignore[misc]


def corpus() -> list[proxies.Sample]:
    """Short and long, one-token responses, several turns, and rows with a common opening."""
    varied = [*proxies.samples(proxies.VARIED), proxies.multi_turn()]
    opening = np.arange(20, 40, dtype=np.int32)
    alike = [
        proxies.Sample(np.concatenate([opening, s.input_ids]), s.position + len(opening))
        for s in proxies.samples([(4, 6), (5, 1), (4, 40)], seed=2)
    ]
    return varied + alike


@cache
def references(family: str, *, tied: bool = False) -> list[reference.Reference]:
    """What the corpus is to come to."""
    model64 = reference.double(proxies.build(family))
    return [reference.measure(model64, sample, tied=tied) for sample in corpus()]


def same(a: Measured, b: Measured, tolerance: float = TOLERANCE) -> None:
    for name in ("nll", "entropy", "el2n", "head_grad_projection", "mean_hidden", "weighted_hidden"):
        assert reference.relative(getattr(a, name), getattr(b, name)) < tolerance, name
    assert a.head_grad_norm == pytest.approx(b.head_grad_norm, rel=tolerance)
    assert a.head_grad_dot == pytest.approx(b.head_grad_dot, rel=100 * tolerance, abs=1e-4)


@pytest.mark.parametrize("chunk_rows", [16, 4096], ids=["by blocks", "at once"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_signal_equals_the_fp64_reference(family: str, chunk_rows: int) -> None:
    tied = family in proxies.TIED
    run = forward(family, tied=tied, token_budget=300)
    run.chunk_rows = chunk_rows
    assert run.head.tied == tied
    for found, expected in zip(measured(run, corpus()), references(family, tied=tied), strict=True):
        worst = reference.errors(found, expected, run.projection)
        assert max(worst.values()) < TOLERANCE, worst
        assert (found.top1 == expected.top1).all()


@pytest.mark.parametrize("family", ["llama-tied", "gemma2-softcap"])
def test_the_way_of_a_gpu_equals_the_fp64_reference_too(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "tiles_pay", lambda _device: True)
    run = forward(family)
    run.chunk_rows = 100
    for found, expected in zip(measured(run, corpus()), references(family, tied=True), strict=True):
        worst = reference.errors(found, expected, run.projection)
        assert max(worst.values()) < TOLERANCE, worst


@pytest.mark.parametrize("family", ["llama-tied", "gemma2-softcap"])
def test_rounded_residuals_change_norms_by_less_than_half_a_percent(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = measured(forward(family), corpus())
    monkeypatch.setattr(readings, "product_dtype", lambda _hidden: torch.bfloat16)
    for a, b in zip(exact, measured(forward(family), corpus()), strict=True):
        assert a.head_grad_norm == pytest.approx(b.head_grad_norm, rel=0.005)
        assert a.head_grad_norm != b.head_grad_norm, "residuals must have been rounded"
        assert (a.nll == b.nll).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_left_padding_in_the_reference_changes_nothing(family: str) -> None:
    run = forward(family)
    for padding, (sample, found) in enumerate(zip(corpus(), measured(run, corpus()), strict=True)):
        ids = torch.from_numpy(np.concatenate([np.full(padding, 2), sample.input_ids]).astype(np.int64))[None]
        mask = (torch.arange(ids.shape[1]) >= padding).long()[None]
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        with torch.inference_mode():
            said = run.model(
                input_ids=ids, attention_mask=mask, position_ids=places, output_hidden_states=True
            )
        logits = said.logits[0].double()
        states = said.hidden_states[-1][0, padding:].double()
        weights = torch.arange(1, len(states) + 1).double()
        weighted = (weights[:, None] * states).sum(0) / weights.sum()
        assert reference.relative(found.weighted_hidden, weighted) < TOLERANCE, "as transformers says it last"
        predicted = logits[sample.position + padding - 1].log_softmax(-1)
        targets = torch.from_numpy(sample.input_ids[sample.position].astype(np.int64))
        nll = -predicted[torch.arange(len(targets)), targets]
        assert reference.relative(found.nll, nll) < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_the_batch_that_a_sample_is_in_changes_nothing(family: str) -> None:
    alone = measured(forward(family, token_budget=1), corpus())
    together = measured(forward(family, token_budget=100_000), corpus())
    shuffled = measured(forward(family, token_budget=200), corpus()[::-1])[::-1]
    for a, b, c in zip(alone, together, shuffled, strict=True):
        same(a, b)
        same(a, c)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_common_opening_computed_once_changes_nothing(family: str) -> None:
    sharing, plain = forward(family), forward(family)
    assert sharing.prefix is not None, f"{family} has a cache that works; sharing must be on"
    plain.prefix = None
    samples = corpus()[-3:]
    for a, b in zip(measured(sharing, samples), measured(plain, samples), strict=True):
        same(a, b)


@pytest.mark.parametrize("rate", [1e-6, 2e-5, 1e-2])
@pytest.mark.parametrize("family", FAMILIES)
def test_don_and_nod_equal_a_real_sgd_step_in_fp64(family: str, rate: float) -> None:
    run = forward(family)
    for sample, expected in zip(corpus()[:6], references(family, tied=family in proxies.TIED), strict=False):
        found = measured(run, [sample])[0]
        weight = torch.nn.Parameter(expected.weight.clone())
        weight.grad = expected.grad
        torch.optim.SGD([weight], lr=rate).step()
        stepped = weight.detach()
        don, nod = don_nod(
            np.array([found.head_grad_norm]),
            np.array([found.head_grad_dot]),
            np.array([run.head_norm]),
            rate,
        )
        assert nod[0] == pytest.approx((expected.weight - stepped).norm().item(), rel=1e-5)
        # <W, G> can cancel to near zero, so DON's error is measured against the step's length.
        difference = (expected.weight.norm() - stepped.norm()).item()
        assert don[0] == pytest.approx(difference, abs=1e-5 * nod[0])


@pytest.mark.parametrize("family", proxies.TIED)
def test_tied_exact_equals_a_step_on_the_shared_weight(family: str) -> None:
    run = forward(family, tied=True)
    model64 = reference.double(run.model)
    sample = proxies.multi_turn()
    found = measured(run, [sample])[0]
    grad = reference.measure(model64, sample, tied=True).tied_grad
    weight = model64.get_output_embeddings().weight
    assert grad is not None
    assert found.tied_grad_norm is not None
    assert found.tied_grad_dot is not None
    stepped = weight - 2e-5 * grad
    don, nod = don_nod(
        np.array([found.tied_grad_norm]), np.array([found.tied_grad_dot]), np.array([run.head_norm]), 2e-5
    )
    assert nod[0] == pytest.approx((weight - stepped).norm().item(), rel=1e-5)
    assert don[0] == pytest.approx((weight.norm() - stepped.norm()).item(), abs=1e-5 * nod[0])
    assert found.tied_grad_norm != pytest.approx(found.head_grad_norm, rel=1e-3), "tying must matter here"
    padding = model64.get_input_embeddings().padding_idx
    assert padding is None or padding in sample.input_ids, "the padding token must be among the inputs"


def test_an_untied_head_gains_nothing_from_tied_exact() -> None:
    found = measured(forward("llama-untied", tied=True), corpus()[:3])
    assert [f.tied_grad_norm for f in found] == [f.head_grad_norm for f in found]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_agrees_with_fp64_to_its_own_rounding(dtype: torch.dtype) -> None:
    model = proxies.build("llama-tied", dtype)
    run = ForwardPass(proxies.Proxy(model, CPU))
    model64 = reference.double(model)  # the same rounded weights
    for sample, found in zip(corpus(), measured(run, corpus()), strict=True):
        expected = reference.measure(model64, sample)
        assert found.nll.dtype == np.float32
        assert found.nll.mean() == pytest.approx(expected.nll.mean(), rel=0.03)
        assert found.head_grad_norm == pytest.approx(expected.grad.norm().item(), rel=0.05)


def test_a_confident_model_keeps_its_small_numbers() -> None:
    """Near-certain predictions: nll of 1e-4 and less must not drown in rounding."""
    model = proxies.build("llama-untied")
    model.get_output_embeddings().weight.mul_(12)
    run = ForwardPass(proxies.Proxy(model, CPU))
    model64 = reference.double(model)
    ids = np.array([5, 17, 30], dtype=np.int32)
    with torch.inference_mode():
        for _ in range(20):
            logits = model(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).logits[0, -1]
            ids = np.append(ids, logits.argmax().numpy().astype(np.int32))
    sample = proxies.Sample(ids, np.arange(3, len(ids), dtype=np.int32))
    found, expected = measured(run, [sample])[0], reference.measure(model64, sample)
    assert expected.nll.min() < 1e-3, "the model is not confident enough for this test"
    assert found.top1.all()
    assert np.abs(found.nll - expected.nll).max() < 1e-5
    assert np.abs(found.entropy - expected.entropy).max() < 1e-5


def test_running_out_of_memory_halves_the_budget_and_loses_nothing() -> None:
    run = forward("llama-tied", token_budget=4000)
    whole = run._batch
    sizes: list[int] = []

    def cramped(batch: list[proxies.Sample]) -> list[Measured | MeasureError]:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return whole(batch)

    run._batch = cramped  # type: ignore[method-assign, assignment]
    results = measured(run, corpus())
    assert max(sizes) > 3
    assert run.token_budget < 4000
    for a, b in zip(results, measured(forward("llama-tied"), corpus()), strict=True):
        same(a, b)


def test_a_sample_that_alone_does_not_fit_is_an_error_and_not_for_ever() -> None:
    run = forward("llama-tied")
    whole = run._batch

    def cramped(batch: list[proxies.Sample]) -> list[Measured | MeasureError]:
        if any(len(s.input_ids) > 90 for s in batch):
            raise MemoryError
        return whole(batch)

    run._batch = cramped  # type: ignore[method-assign, assignment]
    samples = corpus()
    for index, result in run.measure(samples):
        if len(samples[index].input_ids) > 90:
            assert isinstance(result, MeasureError)
            assert "max_length" in result.reason
            assert not result.permanent
        else:
            assert isinstance(result, Measured)


def test_logits_that_are_not_finite_are_an_error_of_that_sample_only() -> None:
    model = proxies.build("llama-untied")
    model.get_input_embeddings().weight[100] = float("inf")
    run = ForwardPass(proxies.Proxy(model, CPU))
    samples = proxies.samples([(5, 5), (5, 5)])
    samples[0].input_ids[:] = np.arange(10, 20)
    samples[1].input_ids[2] = 100
    results = dict(run.measure(samples))
    assert isinstance(results[0], Measured)
    assert isinstance(results[1], MeasureError)
    assert "not finite" in results[1].reason


def test_a_model_that_changes_its_logits_on_the_way_out_is_refused() -> None:
    model = proxies.build("llama-untied")
    model.get_output_embeddings().register_forward_hook(lambda _m, _i, out: out.flip(-1))
    with pytest.raises(ProxyMismatchError, match=r"logits rebuilt .* standard deviations .*float32: 0\.001"):
        ForwardPass(proxies.Proxy(model, CPU))


def test_a_model_that_sees_what_follows_a_token_is_refused() -> None:
    model = proxies.build("llama-untied")
    model.model.embed_tokens.register_forward_hook(lambda _m, _i, out: out + 0.05 * out.mean(1, keepdim=True))
    with pytest.raises(ProxyMismatchError, match="what follows a token changes its hidden state"):
        ForwardPass(proxies.Proxy(model, CPU))


@pytest.mark.parametrize(("positions", "refused"), [(1, False), (7, True)])
def test_rounding_of_bfloat16_may_move_a_logit_but_not_all_of_them(positions: int, refused: bool) -> None:
    """As half precision does it: batches of unlike shape are rounded otherwise, some tokens far more so."""
    model = proxies.build("llama-untied", torch.bfloat16)
    noise = torch.randn(positions, proxies.WIDTH, generator=torch.Generator().manual_seed(0))

    def rounded(_module: Any, _inputs: Any, out: torch.Tensor) -> torch.Tensor:
        if out.shape[1] != 7:
            return out
        moved = out.clone()
        moved[:, :positions] += 0.3 * noise.to(out)
        return moved

    model.model.norm.register_forward_hook(rounded)
    with pytest.raises(ProxyMismatchError, match="perhaps in float32") if refused else nullcontext():
        ForwardPass(proxies.Proxy(model, CPU))


def test_batches_never_exceed_the_budget_and_hold_every_sample_once() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 400, 200).tolist()
    order = sorted(range(200), key=lambda i: -lengths[i])
    batches = list(token_batches(order, lengths, 512))
    assert [i for batch in batches for i in batch] == order
    assert all(len(b) == 1 or max(lengths[i] for i in b) * len(b) <= 512 for b in batches)


def test_the_projection_keeps_inner_products_on_average() -> None:
    """Unbiased: over the V and D sides, <phi(G), phi(G')> estimates <G, G'>."""
    run = forward("llama-untied")
    k1, k2 = PROJECTION_SHAPE
    assert run.projection.vocabulary.shape == (k1, proxies.VOCABULARY)
    assert run.projection.hidden.shape == (k2, proxies.WIDTH)
    assert torch.allclose(run.projection.vocabulary.square().sum(0), torch.ones(proxies.VOCABULARY))
    for found, expected in zip(measured(run, corpus()), references("llama-untied"), strict=True):
        ratio = np.linalg.norm(found.head_grad_projection) / expected.grad.norm().item()
        assert 0.5 < ratio < 1.6


@pytest.mark.slow
def test_the_default_proxy_model_agrees_with_fp64_autograd(smollm2: Path) -> None:
    proxy = load(smollm2)
    run = ForwardPass(proxy, tied=True, token_budget=256)
    assert run.head.tied
    assert run.prefix is not None
    model64 = reference.double(proxy.model)
    tokenizer = proxy.tokenizer
    samples = []
    for prompt, response in (
        ("Name the capital of France.", "The capital of France is Paris."),
        ("Add 17 and 25.", "42"),
    ):
        head = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
        )
        tail = tokenizer.encode(response + "<|im_end|>", add_special_tokens=False)
        ids = np.array([*head, *tail], dtype=np.int32)
        samples.append(proxies.Sample(ids, np.arange(len(head), len(ids), dtype=np.int32)))
    for sample, found in zip(samples, measured(run, samples), strict=True):
        expected = reference.measure(model64, sample, tied=True)
        worst = reference.errors(found, expected, run.projection)
        assert max(worst.values()) < 1e-4, worst
        assert (found.top1 == expected.top1).all()


@pytest.mark.parametrize("family", ["llama-tied", "qwen3"])
def test_lora_effort_is_measured_when_asked_for_and_does_not_depend_on_the_batch(family: str) -> None:
    model = proxies.build(family)
    together = measured(ForwardPass(proxies.Proxy(model, CPU), lora=True), corpus())
    alone = ForwardPass(proxies.Proxy(model, CPU), token_budget=1, lora=True)
    for found, expected in zip(together, measured(alone, corpus()), strict=True):
        assert found.lora_effort == pytest.approx(expected.lora_effort, rel=TOLERANCE)
    assert measured(forward(family), corpus()[:1])[0].lora_effort is None
    both = measured(ForwardPass(proxies.Proxy(model, CPU), lora=True, tied=True), corpus()[:1])[0]
    assert both.lora_effort == pytest.approx(together[0].lora_effort, rel=TOLERANCE)
    assert both.tied_grad_norm is not None


def test_a_model_without_a_v_proj_cannot_measure_lora_effort() -> None:
    with pytest.raises(ProxyMismatchError, match=r"GPT2LMHeadModel has no layer called v_proj"):
        forward("gpt2", lora=True)
