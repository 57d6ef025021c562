"""How a training is cut into steps, and a step into passes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from datapruner.tuning.batches import Sizes, batches, passes, steps
from datapruner.tuning.examples import Examples


def cost(cut: list[list[int]], lengths: list[int], another: int) -> int:
    return sum(another + len(rows) * max(lengths[row] for row in rows) for rows in cut)


def all_cuts(rows: list[int]) -> list[list[list[int]]]:
    """Every way to cut a list into consecutive parts."""
    found = []
    for marks in itertools.product((False, True), repeat=len(rows) - 1):
        cut = [[rows[0]]]
        for row, new in zip(rows[1:], marks, strict=True):
            if new:
                cut.append([row])
            else:
                cut[-1].append(row)
        found.append(cut)
    return found


@pytest.mark.parametrize("another", [0, 5, 60])
@pytest.mark.parametrize("budget", [30, 64, 1000])
def test_no_way_to_cut_rows_by_length_costs_less(another: int, budget: int) -> None:
    lengths = [3, 40, 7, 7, 22, 21, 9, 31]
    found = [each.tolist() for each in passes(np.array(lengths), np.arange(8), Sizes(budget, another))]
    assert sorted(itertools.chain(*found)) == list(range(8))
    by_length = sorted(range(8), key=lambda row: (-lengths[row], row))
    allowed = [
        cut
        for cut in all_cuts(by_length)
        if all(len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= budget for rows in cut)
    ]
    assert found in allowed
    assert cost(found, lengths, another) == min(cost(cut, lengths, another) for cut in allowed)


def test_steps_have_the_rows_in_order_and_about_equally_many_tokens() -> None:
    random = np.random.default_rng(3)
    counted, order = random.integers(1, 20, 400), random.permutation(400)
    cut = steps(counted, order, 16)
    assert np.concatenate(cut).tolist() == order.tolist()
    sizes = np.array([counted[rows].sum() for rows in cut])
    assert len(sizes) == 16
    assert np.abs(sizes - counted.sum() / 16).max() <= 20


def test_a_row_longer_than_a_step_takes_the_place_of_several() -> None:
    cut = steps(np.array([1, 97, 1, 1]), np.arange(4), 4)
    assert [rows.tolist() for rows in cut] == [[0], [1], [2, 3]]


def test_a_batch_points_at_the_tokens_that_count_and_at_what_predicts_them() -> None:
    ids = [np.array([5, 6, 7, 8, 9], np.int32), np.array([1, 2, 3], np.int32)]
    examples = Examples.of(ids, [np.array([1, 3], np.int32), np.array([2], np.int32)])
    assert examples.lengths.tolist() == [4, 3]
    assert examples.counted.tolist() == [2, 1]
    [batch] = batches(examples, np.arange(2), Sizes(100, 100), torch.device("cpu"))
    assert batch.input_ids.tolist() == [[5, 6, 7, 8], [1, 2, 3, 0]]
    assert [each.tolist() for each in batch.where] == [[0, 0, 1], [0, 2, 1]]
    assert batch.targets.tolist() == [6, 8, 3]
    assert batch.row_of.tolist() == [0, 0, 1]
