"""Which rows are drawn for an arm."""

from __future__ import annotations

import numpy as np
import polars as pl

from datapruner.evaluation.controls import Candidates

RANDOM = np.random.default_rng(2)
COUNTED = RANDOM.integers(1, 50, 300)
ROWS = Candidates(pl.Series([f"{row:03d}" for row in range(300)]), COUNTED, COUNTED + 30)


def test_draws_have_the_tokens_asked_for_within_one_row() -> None:
    for seed in range(20):
        drawn = ROWS.draw(1000, seed)
        assert abs(drawn.total - 1000) <= COUNTED.max() / 2
        assert len(set(drawn.sample_ids)) == len(drawn.sample_ids)
        assert [int(each) for each in drawn.sample_ids] == sorted(map(int, drawn.sample_ids))
        assert drawn.counted.tolist() == [COUNTED[int(each)] for each in drawn.sample_ids]


def test_each_seed_draws_others_and_the_same_again() -> None:
    draws = [ROWS.draw(1000, seed).sample_ids.to_list() for seed in (0, 1, 0)]
    assert draws[0] == draws[2]
    assert draws[0] != draws[1]


def test_a_draw_of_all_tokens_is_all_rows() -> None:
    assert ROWS.draw(ROWS.total, 4).sample_ids.to_list() == ROWS.sample_ids.to_list()


def test_the_longest_have_no_shorter_row_than_any_left_out() -> None:
    longest = ROWS.longest(1000)
    left = set(range(300)) - set(map(int, longest.sample_ids))
    assert longest.counted.min() >= max(COUNTED[row] for row in left)
    assert abs(longest.total - 1000) <= 25
