"""Columns of samples wherever they are in the shards: in short files, in long ones, in any order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from datapruner.measuring import places as module
from datapruner.measuring.places import Places, flatten


@pytest.fixture
def everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Places, pl.DataFrame]:
    """Samples of seven shards, two of them long, and what they hold."""
    monkeypatch.setattr(module, "_LINES_AT_ONCE", 10)
    heights, shards, frames = [3, 4, 25, 6, 1, 40, 5], [], []
    for number, height in enumerate(heights):
        at = np.arange(height) + 100 * number
        lists = pl.Series([list(range(n % 4)) for n in at], dtype=pl.List(pl.Int32))
        frame = pl.DataFrame({"number": at, "list": lists})
        shards.append(tmp_path / f"{number}.parquet")
        frame.write_parquet(shards[-1], row_group_size=7)
        frames.append(frame)
    shard = np.repeat(np.arange(7), heights)
    line = np.concatenate([np.arange(height) for height in heights])
    return Places(shards, np.array(heights), shard, line), pl.concat(frames)


@pytest.mark.parametrize("count", [1, 2, 9, 40, 84])
def test_columns_come_in_the_order_of_the_samples(
    everything: tuple[Places, pl.DataFrame], count: int
) -> None:
    places, held = everything
    chosen = np.random.default_rng(count).permutation(84)[:count]
    some = Places(places.shards, places.heights, places.shard[chosen], places.line[chosen])
    assert some.columns(["list", "number"]).equals(held[chosen].select("list", "number"))
    half = some.part(count // 2, count)
    assert half.columns(["number"])["number"].to_list() == held["number"][chosen[count // 2 :]].to_list()


@pytest.mark.parametrize("count", [1, 9, 40, 84])
def test_blocks_are_of_few_lines_and_of_all_samples_once(
    everything: tuple[Places, pl.DataFrame], count: int
) -> None:
    places, held = everything
    chosen = np.random.default_rng(count).permutation(84)[:count]
    some = Places(places.shards, places.heights, places.shard[chosen], places.line[chosen])
    found = list(some.blocks(["number", "list"]))
    assert max(len(rows) for rows, _ in found) <= 10
    assert sorted(np.concatenate([rows for rows, _ in found]).tolist()) == list(range(count))
    for rows, frame in found:
        assert frame.equals(held[chosen[rows]])


def test_of_a_long_shard_only_the_stretch_that_is_wanted_is_read(
    everything: tuple[Places, pl.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    places, _ = everything
    read: list[int] = []
    concat = pl.concat
    monkeypatch.setattr(module.pl, "concat", lambda parts: read.extend(map(len, parts)) or concat(parts))
    wanted = Places(places.shards, places.heights, np.array([5, 0, 5]), np.array([31, 2, 28]))
    assert wanted.columns(["number"])["number"].to_list() == [531, 2, 528]
    assert read == [3, 4]


def test_lists_are_laid_end_to_end() -> None:
    assert flatten(pl.Series([[1, 2], [], [3]])).tolist() == [1, 2, 3]
    pieces = pl.concat([pl.Series([[True]]), pl.Series([[False], [True]])])
    assert flatten(pieces[1:]).tolist() == [False, True]
