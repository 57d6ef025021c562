"""Many small shards become one, and no sample is lost or read twice on the way."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from datapruner.measuring import compaction, merged
from datapruner.measuring.signal_cache import SignalCache
from tests.datapruner.measuring.test_signal_cache import EVERYTHING, KEY, failure, put, row

NIGHTS = compaction.MANY + 1


@pytest.fixture
def cache(tmp_path: Path) -> SignalCache:
    """One that a sample was added to each night, and a failure one night."""
    cache = SignalCache(tmp_path, KEY)
    cache.create()
    for night in range(NIGHTS):
        put(cache, row(f"s{night}", float(night)), *([failure("bad")] if night == 5 else ()))
    return cache


IDS = [f"s{night}" for night in range(NIGHTS)]


def small_files(cache: SignalCache) -> list[Path]:
    return [path for path in sorted(cache.folder.glob("*.parquet")) if not merged.is_merged(path)]


def age(path: Path, days: float) -> None:
    moment = (datetime.now(UTC) - timedelta(days=days)).timestamp()
    os.utime(path, (moment, moment))


def test_few_small_shards_are_left_as_they_are(cache: SignalCache) -> None:
    small_files(cache)[0].unlink()
    before = cache.shards()
    compaction.merge(cache.folder)
    assert cache.shards() == before


def test_many_become_one_with_the_same_signals(cache: SignalCache) -> None:
    before = cache.signals(IDS, EVERYTHING)
    compaction.merge(cache.folder)
    fresh = SignalCache(cache.folder.parents[1], KEY)
    (shard,) = fresh.shards()
    assert merged.is_merged(shard)
    after = fresh.signals(IDS, EVERYTHING)
    for name, column in {**before.samples, **before.tokens}.items():
        assert {**after.samples, **after.tokens}[name].tolist() == column.tolist(), name
    every = np.arange(NIGHTS)
    for name, vectors in before.vectors.items():
        assert after.vectors[name][every].tolist() == vectors[every].tolist(), name
    assert dict(fresh.status([*IDS, "bad", "x"]).iter_rows()) == dict.fromkeys(IDS) | {
        "bad": "cannot be rendered"
    }


def test_who_listed_the_small_ones_before_still_reads_them_for_a_day(cache: SignalCache) -> None:
    listed = cache.shards()
    compaction.merge(cache.folder)
    assert compaction.superseded(cache.folder) == []
    assert all(path.is_file() for path in listed)
    (shard,) = cache.shards()
    age(shard, days=2)
    assert sorted(compaction.superseded(cache.folder)) == listed
    now = datetime.now(UTC)
    assert compaction.superseded(cache.folder, {shard.name: now}) == []
    assert sorted(compaction.superseded(cache.folder, {shard.name: now - timedelta(days=2)})) == listed
    for path in listed:
        path.unlink()
    assert cache.signals(IDS, frozenset({"nll"})).samples["nll"].tolist() == [float(n) for n in range(NIGHTS)]


def test_a_shard_that_got_a_sample_after_it_was_merged_is_one_again(cache: SignalCache) -> None:
    compaction.merge(cache.folder)
    (shard,) = cache.shards()
    age(shard, days=2)
    again = put(cache, row("s3", 3.0))
    put(cache, row("s3", 3.0), row("late", 9.0)).rename(again)  # which has the name of its task
    assert again in cache.shards()
    assert again not in compaction.superseded(cache.folder)
    assert cache.signals(["late"], frozenset({"nll"})).samples["nll"].tolist() == [9.0]


def test_merging_again_changes_nothing_and_more_small_ones_wait_until_they_are_many(
    cache: SignalCache,
) -> None:
    compaction.merge(cache.folder)
    (first,) = cache.shards()
    content = first.read_bytes()
    put(cache, row("new", 1.0))
    compaction.merge(cache.folder)
    assert len(cache.shards()) == 2
    first.unlink()  # and all are small ones again
    compaction.merge(cache.folder)
    again = [path for path in cache.shards() if merged.is_merged(path)]
    assert len(again) == 1
    assert "new" in SignalCache(cache.folder.parents[1], KEY).status(["new"])["sample_id"]
    assert content != again[0].read_bytes()


def test_the_same_small_shards_give_the_same_bytes(cache: SignalCache, tmp_path: Path) -> None:
    compaction.merge(cache.folder)
    (first,) = cache.shards()
    content = first.read_bytes()
    first.unlink()
    compaction.merge(cache.folder)
    assert [path.read_bytes() for path in cache.shards()] == [content]


def test_large_shards_stay_and_no_merged_one_has_more_rows_than_are_held_at_once(
    cache: SignalCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "_ROWS", 20)
    compaction.merge(cache.folder)
    assert len(cache.shards()) == 2
    monkeypatch.setattr(compaction, "SMALL_BYTES", 1)
    before = cache.shards()
    compaction.merge(cache.folder)
    assert cache.shards() == before


def test_a_folder_that_is_not_there_has_nothing_to_merge(tmp_path: Path) -> None:
    compaction.merge(tmp_path / "none")
    assert compaction.superseded(tmp_path / "none") == []
