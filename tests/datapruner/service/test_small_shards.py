"""Small shards are merged in storage, for every machine, and gone from it a day later."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from datapruner.measuring import compaction, merged
from datapruner.measuring.signal_cache import SignalCache
from datapruner.service import small_shards
from datapruner.service.storage import Storage, open_storage
from tests.datapruner.measuring.test_signal_cache import KEY, put, row

PROJECT = "projects/prj_1"
PREFIX = f"{PROJECT}/signals/{KEY.digest()}"
IDS = [f"s{night}" for night in range(compaction.MANY + 1)]


def cache(storage: Storage) -> SignalCache:
    storage.pull(PREFIX)
    return SignalCache(storage.folder(PROJECT), KEY)


def stored(storage: Storage) -> list[bool]:
    """Of each shard in storage, whether it is a merged one."""
    names = [Path(each.key) for each in storage.listing(PREFIX) if each.key.endswith(".parquet")]
    return [merged.is_merged(name) for name in names]


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_every_machine_finds_all_samples_before_and_after_the_small_ones_go(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "files") if kind == "folder" else request.getfixturevalue("s3_url")
    here, there = (open_storage(url, tmp_path / machine) for machine in ("here", "there"))
    measured = cache(here)
    measured.create()
    for number, sample_id in enumerate(IDS):
        put(measured, row(sample_id, float(number)))
    here.push(PREFIX)
    before = cache(there)
    assert len(before.status(IDS)) == len(IDS)
    small_shards.merge(here, [PREFIX])
    assert sorted(stored(here)) == [False] * len(IDS) + [True]
    assert len(before.columns(IDS, ["nll_mean"])) == len(IDS)
    monkeypatch.setattr(compaction, "GRACE", timedelta(days=-1))
    small_shards.merge(here, [PREFIX])
    assert stored(here) == [True]
    small_shards.merge(there, [PREFIX])  # which may still have copies of the small ones
    assert stored(there) == [True]
    found = cache(open_storage(url, tmp_path / "elsewhere"))
    assert found.columns(IDS, ["nll_mean"])["nll_mean"].to_list() == [float(n) for n in range(len(IDS))]


def test_what_the_storage_refuses_is_left_for_another_time(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path), tmp_path / "cache")
    (tmp_path / PREFIX).mkdir(parents=True)
    (tmp_path / PREFIX / merged.name("torn.parquet")).mkdir()
    small_shards.merge(storage, [PREFIX])
