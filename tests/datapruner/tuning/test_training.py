"""One training: its loss and gradients against transformers' own and a plain loop, in double precision."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

from datapruner.tuning.batches import batches
from datapruner.tuning.examples import Examples
from datapruner.tuning.reading import read
from datapruner.tuning.training import Trained, Trainee

UNTRAINED = -100


@pytest.fixture(scope="module")
def examples() -> Examples:
    """Rows of unlike lengths, of which some tokens count."""
    random = np.random.default_rng(0)
    ids = [random.integers(0, 300, int(size)).astype(np.int32) for size in random.integers(9, 60, 12)]
    where = [np.sort(random.choice(np.arange(1, len(row)), len(row) // 2, replace=False)) for row in ids]
    return Examples.of(ids, [each.astype(np.int32) for each in where])


@pytest.fixture(params=[False, True], ids=["lora", "full"])
def trainee(tiny_folder: Path, request: pytest.FixtureRequest) -> Trainee:
    return Trainee(tiny_folder, "cpu", full=request.param, token_budget=128)


def padded(examples: Examples) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All rows in one batch, as a trainer would have them: ids, mask and labels."""
    shape = (len(examples), int(examples.lengths.max()))
    ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, UNTRAINED)
    for line in range(len(examples)):
        tokens, where = examples.row(line)
        ids[line, : len(tokens)] = torch.from_numpy(tokens.astype(np.int64))
        mask[line, : len(tokens)] = 1
        labels[line, where] = ids[line, where]
    return ids, mask, labels


def gradients(trainee: Trainee, examples: Examples) -> dict[str, torch.Tensor]:
    """Of the mean over the tokens that count, by our passes."""
    trainee.model.zero_grad(set_to_none=True)
    for batch in batches(examples, np.arange(len(examples)), trainee.sizes, trainee.device):
        (trainee.loss(batch) / int(examples.counted.sum())).backward()
    return {
        name: each.grad.clone()
        for name, each in trainee.model.named_parameters()
        if each.requires_grad and each.grad is not None
    }


def test_losses_are_those_of_transformers_in_double_precision(
    tiny_folder: Path, trainee: Trainee, examples: Examples
) -> None:
    trainee.begin(3)
    reference = tf.AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float64)
    ids, mask, labels = padded(examples)
    with torch.no_grad():
        expected = reference(input_ids=ids, attention_mask=mask, labels=labels).loss.item()
    nll = read(trainee, examples)
    assert nll.sum() / examples.counted.sum() == pytest.approx(expected, rel=1e-6)
    for row in (0, 7):
        tokens, where = examples.row(row)
        mine = torch.full((1, len(tokens)), UNTRAINED)
        mine[0, where] = torch.from_numpy(tokens[where].astype(np.int64))
        with torch.no_grad():
            one = reference(input_ids=torch.from_numpy(tokens.astype(np.int64))[None], labels=mine)
        assert nll[row] / len(where) == pytest.approx(one.loss.item(), rel=1e-6)


def test_the_weighted_gradient_is_that_of_the_weighted_sum_by_the_number_of_tokens(
    trainee: Trainee, examples: Examples
) -> None:
    weights = np.random.default_rng(3).random(len(examples.ids)).astype(np.float32)
    weighted = replace(examples, weights=weights)
    trainee.begin(3)
    with torch.no_grad():
        for each in trainee.parameters:
            each.add_(torch.randn(each.shape, generator=torch.Generator().manual_seed(1)) * 1e-2)
    found, alike = gradients(trainee, weighted), gradients(trainee, examples)
    trainee.model.zero_grad(set_to_none=True)
    ids, mask, labels = padded(examples)
    factors = torch.zeros(labels.shape, dtype=torch.float64)
    for line, (start, stop) in enumerate(pairwise(examples.begins.tolist())):
        factors[line, : stop - start] = torch.from_numpy(weights[start:stop])
    trainee.model.double()
    logits = trainee.model(input_ids=ids, attention_mask=mask).logits[:, :-1].transpose(1, 2)
    nll = torch.nn.functional.cross_entropy(logits, labels[:, 1:], reduction="none")
    ((nll * factors[:, 1:]).sum() / (labels != UNTRAINED).sum()).backward()
    for name, each in trainee.model.named_parameters():
        if each.grad is not None:
            torch.testing.assert_close(found[name].double(), each.grad, rtol=1e-4, atol=1e-7)
    assert not any(torch.equal(found[name], alike[name]) for name in found)


def test_gradients_are_those_of_one_padded_batch(trainee: Trainee, examples: Examples) -> None:
    trainee.begin(3)
    with torch.no_grad():  # an adapter as it begins hands no gradient to one of its two factors
        for each in trainee.parameters:
            each.add_(torch.randn(each.shape, generator=torch.Generator().manual_seed(1)) * 1e-2)
    found = gradients(trainee, examples)
    assert len(found) == len(trainee.parameters)
    trainee.model.zero_grad(set_to_none=True)
    ids, mask, labels = padded(examples)
    trainee.model.double()
    trainee.model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
    expected = {n: p.grad for n, p in trainee.model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient.double(), expected[name], rtol=1e-4, atol=1e-7)


def trained(trainee: Trainee, examples: Examples, **how: Any) -> tuple[Trained, bytes]:
    done = trainee.train(examples, **{"seed": 5, "rate": 3e-3, "number": 4, **how})
    return done, read(trainee, examples).tobytes()


def test_a_training_gives_the_same_bytes_whatever_was_trained_before(
    trainee: Trainee, examples: Examples
) -> None:
    done, first = trained(trainee, examples)
    _, other = trained(trainee, examples, seed=6)
    again, second = trained(trainee, examples)
    assert (done, first) == (again, second)
    assert first != other
    assert (done.rows, done.steps) == (12, 4)
    assert done.trained_tokens == examples.counted.sum()
    assert examples.lengths.sum() <= done.padded < 1.25 * examples.lengths.sum()


def test_a_training_lowers_the_loss_of_what_it_trains_on(trainee: Trainee, examples: Examples) -> None:
    trainee.begin(5)
    before = read(trainee, examples).sum()
    _, after = trained(trainee, examples, rate=1e-2, number=12)
    assert np.frombuffer(after).sum() < 0.99 * before


def test_adapters_of_one_seed_begin_alike(tiny_folder: Path) -> None:
    trainee = Trainee(tiny_folder, "cpu", full=False)

    def weights(seed: int) -> list[torch.Tensor]:
        trainee.begin(seed)
        return [each.detach().clone() for each in trainee.parameters]

    first, other, again = weights(1), weights(2), weights(1)
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not all(torch.equal(*pair) for pair in zip(first, other, strict=True))
