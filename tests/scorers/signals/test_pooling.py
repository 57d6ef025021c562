"""The position-weighted mean of hidden states against a loop over positions."""

from __future__ import annotations

import pytest
import torch

from scorers.signals import pooling
from scorers.signals.pooling import weighted_mean


@pytest.mark.parametrize("at_once", [1, 40, 1 << 24])
def test_the_mean_is_that_of_a_loop_over_positions(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "_NUMBERS", at_once)
    generator = torch.Generator().manual_seed(0)
    opening, rest = (torch.randn(*shape, generator=generator) for shape in ((1, 3, 5), (4, 7, 5)))
    lengths = [10, 4, 7, 3]
    found = weighted_mean([opening, rest], lengths)
    for sample, length in enumerate(lengths):
        states = torch.cat([opening[0], rest[sample]]).double()[:length]
        expected = sum(place * state for place, state in enumerate(states, start=1)) / sum(
            range(1, length + 1)
        )
        assert torch.allclose(found[sample].double(), torch.as_tensor(expected), rtol=1e-5, atol=1e-6)


def test_padding_weighs_nothing_whatever_it_holds() -> None:
    states = torch.ones(1, 6, 2)
    states[:, 4:] = 1e30
    assert torch.allclose(weighted_mean([states], [4]), torch.ones(1, 2))


def test_half_precision_is_summed_in_single() -> None:
    states = torch.full((1, 5000, 1), 0.1, dtype=torch.bfloat16)
    assert float(weighted_mean([states], [5000])) == pytest.approx(float(states[0, 0, 0]), rel=1e-5)
