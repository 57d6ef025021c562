"""||G||^2 of many samples in every form against the matrix itself in fp64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scorers.signals import norms

VOCABULARY, WIDTH = 301, 40
LENGTHS = {
    "of like length": [7, 7, 6, 6],
    "one token each": [1] * 9,
    "from long to short": [40, 33, 12, 5, 1, 1],
    "in any order": [1, 40, 3, 17, 1, 29],
    "longer than D too": [3, 90, 40, 41, 130, 2],
}


def states(lengths: list[int], rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """g (R, V), h (R, D) and the sample of each row, padded with zero states to a multiple of `rows`."""
    generator = torch.Generator().manual_seed(sum(lengths))
    count = sum(lengths)
    g = torch.randn(count, VOCABULARY, generator=generator).softmax(-1)
    g[torch.arange(count), torch.randint(0, VOCABULARY, (count,), generator=generator)] -= 1
    h = torch.randn(count, WIDTH, generator=generator) + 0.5
    extra = -count % rows
    sample_of = torch.from_numpy(np.repeat(np.arange(len(lengths) + 1), [*lengths, extra]))
    g = torch.cat([g, torch.full((extra, VOCABULARY), 1 / VOCABULARY)])
    return g, torch.cat([h, torch.zeros(extra, WIDTH)]), sample_of


def expected(g: torch.Tensor, h: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    rows = sum(lengths)
    pairs = zip(g[:rows].double().split(lengths), h[:rows].double().split(lengths), strict=True)
    return torch.stack([(a.T @ b).square().sum() for a, b in pairs])


@pytest.mark.parametrize("rows", [4, 16, 64])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_tiles_of_rows_give_every_samples_norm(lengths: list[int], rows: int) -> None:
    g, h, sample_of = states(lengths, rows)
    found = norms.by_tiles(g, h, lengths, sample_of, rows)
    short = torch.tensor(lengths) <= WIDTH
    assert torch.allclose(found[short], expected(g, h, lengths)[short], rtol=1e-5)


@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_both_forms_give_the_norms_of_a_batch(
    lengths: list[int], tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(norms, "tiles_pay", lambda _device: tiled)
    g, h, sample_of = states(lengths, norms.tile(lengths) if tiled else 1)
    found = norms.squared_norms(g, h, lengths, sample_of)
    assert torch.allclose(found, expected(g, h, lengths), rtol=1e-5)


def test_a_sample_that_is_not_finite_leaves_its_tile_alone() -> None:
    lengths = [5, 4, 6]
    g, h, sample_of = states(lengths, 16)
    g[6] = float("nan")
    found = norms.by_tiles(g, h, lengths, sample_of, 16)
    clean = expected(g, h, lengths)
    assert torch.isnan(found[1])
    assert torch.allclose(found[[0, 2]], clean[[0, 2]], rtol=1e-5)


def test_halves_of_a_long_sample_count_each_pair_once() -> None:
    wide = torch.randn(300, 310, generator=torch.Generator().manual_seed(1))
    g = torch.randn(300, 64, generator=torch.Generator().manual_seed(2))
    found = norms.of_sample(g, wide)
    assert torch.isclose(found, (g.double().T @ wide.double()).square().sum(), rtol=1e-5)


def test_tiles_grow_with_the_longest_sample() -> None:
    assert [norms.tile([1, n]) for n in (1, 128, 129, 256, 257, 5000)] == [64, 64, 128, 128, 256, 256]
