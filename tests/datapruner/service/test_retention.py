"""Retention and the sweep: what goes, and that nothing goes which something refers to."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from datapruner.catalog.database import Database
from datapruner.catalog.models import (
    Base,
    Dataset,
    Export,
    Job,
    Project,
    Reply,
    Run,
    Token,
    Upload,
    Version,
    new_id,
    utcnow,
)
from datapruner.measuring.signal_cache import ProxyKey
from datapruner.service import retention
from datapruner.service.storage import FolderStorage
from datapruner.system.files import unfinished

DAY = timedelta(days=1)
ROOT = "projects/prj_1"


class Place:
    """A project with one dataset; what is made here has its file in storage, as if it had been published."""

    def __init__(self, home: Path) -> None:
        self.db = Database(f"sqlite:///{home / 'catalog.sqlite'}")
        self.storage = FolderStorage(home / "files")
        Base.metadata.create_all(self.db.engine)
        self._home = home
        self.add(Project(id="prj_1", name="ours"))
        self.add(Token(id="tok_1", project_id="prj_1", name="t", digest="d", scopes=["write"]))
        self.add(Dataset(id="ds_1", project_id="prj_1", name="alpaca"))

    def add(self, row: Base) -> None:
        with self.db.write() as session:
            session.add(row)

    def keep(self, *, versions: int | None = None, runs: int | None = None) -> None:
        with self.db.write() as session:
            dataset = session.get_one(Dataset, "ds_1")
            dataset.keep_versions, dataset.keep_runs = versions, runs
        retention.apply(self.db, self.storage, "ds_1")

    def file(self, key: str, *, days_old: float = 0) -> str:
        path = self._home / "new"
        path.write_bytes(b"content")
        self.storage.publish(path, key)
        moment = time.time() - days_old * 86400
        os.utime(self.storage.root / key, (moment, moment))
        return key

    def has(self, key: str) -> bool:
        return (self.storage.root / key).exists()

    def job(self, state: str = "succeeded", kind: str = "run", **payload: object) -> str:
        job = Job(id=new_id("job"), project_id="prj_1", kind=kind, payload=payload, state=state)
        job.started_at = None if state == "queued" else utcnow()
        self.add(job)
        return job.id

    def version(self, number: int) -> str:
        version_id = f"ver_{number}"
        self.add(
            Version(
                id=version_id,
                dataset_id="ds_1",
                number=number,
                key=self.file(f"{ROOT}/corpora/ds_1/{version_id}/corpus.duckdb"),
                corpus_hash="h",
                rows=1,
                accepted=1,
                rejected=0,
                duplicates=0,
                new_rows=1,
                bytes=7,
                report={},
            )
        )
        return version_id

    def run(self, version_id: str, *, job_id: str | None = None, published: bool = True) -> Run:
        run = Run(id=new_id("run"), project_id="prj_1", dataset_id="ds_1", version_id=version_id, config={})
        run.job_id = job_id or self.job()
        if published:
            run.key, run.published_at = f"{ROOT}/runs/{run.id}/1", utcnow()
            self.file(f"{run.key}/run.duckdb")
        self.add(run)
        return run

    def export(self, run: Run, job_id: str, *, published: bool = True) -> str:
        export = Export(id=new_id("exp"), project_id="prj_1", run_id=run.id, job_id=job_id, format="parquet")
        if published:
            export.key, export.published_at = f"{ROOT}/exports/{export.id}/1/subset.parquet", utcnow()
            self.file(export.key)
        self.add(export)
        return export.id

    def ids(self, table: type[Run] | type[Version] | type[Export] | type[Upload] | type[Reply]) -> list[str]:
        with self.db.read() as session:
            return list(session.scalars(select(table.id).order_by(table.id)))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.db.close()


# Retention


def test_the_oldest_versions_and_runs_beyond_the_numbers_go_with_their_files(place: Place) -> None:
    runs = [place.run(place.version(number)) for number in range(1, 6)]
    place.keep(versions=3, runs=2)
    assert place.ids(Run) == [run.id for run in runs[3:]]
    assert place.ids(Version) == ["ver_3", "ver_4", "ver_5"]
    assert [place.has(f"{ROOT}/runs/{run.id}") for run in runs] == [False] * 3 + [True] * 2
    assert [place.has(f"{ROOT}/corpora/ds_1/ver_{n}") for n in range(1, 6)] == [False] * 2 + [True] * 3


def test_without_numbers_everything_stays(place: Place) -> None:
    run = place.run(place.version(1))
    place.version(2)
    place.keep()
    assert (place.ids(Run), place.ids(Version)) == ([run.id], ["ver_1", "ver_2"])


def test_a_version_of_a_run_that_stays_and_the_latest_stay(place: Place) -> None:
    for number in range(1, 4):
        place.version(number)
    place.run("ver_1")
    place.keep(versions=1)
    assert place.ids(Version) == ["ver_1", "ver_3"]


def test_the_export_of_a_runs_own_job_goes_with_it_and_one_asked_for_keeps_it(place: Place) -> None:
    place.version(1)
    nightly, asked, latest = (place.run("ver_1") for _ in range(3))
    export = place.export(nightly, nightly.job_id)
    kept = place.export(asked, place.job(kind="export"))
    place.keep(runs=1)
    assert place.ids(Run) == [asked.id, latest.id]
    assert place.ids(Export) == [kept]
    assert not place.has(f"{ROOT}/exports/{export}")
    assert place.has(f"{ROOT}/exports/{kept}")


def test_an_export_that_is_being_made_keeps_its_run_and_one_that_failed_does_not(place: Place) -> None:
    place.version(1)
    failed, making, latest = (place.run("ver_1") for _ in range(3))
    place.export(failed, place.job("failed", "export"), published=False)
    place.export(making, place.job("running", "export"), published=False)
    place.keep(runs=1)
    assert place.ids(Run) == [making.id, latest.id]


def test_a_run_whose_job_is_open_stays_and_does_not_count(place: Place) -> None:
    place.version(1)
    _, new = place.run("ver_1"), place.run("ver_1")
    working = place.run("ver_1", job_id=place.job("running"), published=False)
    place.keep(runs=1)
    assert place.ids(Run) == [new.id, working.id]


def test_failed_runs_go_once_they_are_older_than_what_stays(place: Place) -> None:
    place.version(1)
    place.run("ver_1", job_id=place.job("failed"), published=False)
    good = place.run("ver_1")
    new_failure = place.run("ver_1", job_id=place.job("failed"), published=False)
    place.keep(runs=1)
    assert place.ids(Run) == [good.id, new_failure.id]


def test_versions_that_open_jobs_read_stay(place: Place) -> None:
    for number in (1, 2):
        place.version(number)
    place.job("queued", run={"dataset_id": "ds_1", "version_id": "ver_1"})
    place.keep(versions=1)
    assert place.ids(Version) == ["ver_1", "ver_2"]
    place.version(3)
    place.job("running", ingest={"dataset_id": "ds_1", "mode": "append_new"})
    place.version(4)
    place.version(5)
    place.keep(versions=1)
    assert place.ids(Version) == ["ver_1", "ver_3", "ver_4", "ver_5"]


def test_files_that_storage_does_not_let_go_are_left_to_the_sweep(place: Place) -> None:
    runs = [place.run(place.version(number)) for number in (1, 2)]
    folder = place.storage.root / ROOT / "runs"
    stuck = folder / runs[0].id
    stuck.rename(folder / "aside")
    stuck.symlink_to(folder / "aside")  # which a recursive removal refuses
    place.keep(runs=1)
    assert place.has(f"{ROOT}/runs/{runs[0].id}")
    assert place.ids(Run) == [runs[1].id]


# The sweep


def test_old_files_without_a_row_go_and_all_others_stay(place: Place) -> None:
    run = place.run(place.version(1))
    export = place.export(run, run.job_id)
    referred = [
        f"{ROOT}/corpora/ds_1/ver_1/corpus.duckdb",
        f"{run.key}/run.duckdb",
        place.file(f"{run.key}/run.json"),
        f"{ROOT}/exports/{export}/1/subset.parquet",
    ]
    for key in referred:
        place.file(key, days_old=9)
    others = [
        place.file(f"{ROOT}/signals/abc/shard.parquet", days_old=9),
        place.file(f"{ROOT}/runs/{run.id}/2/run.duckdb", days_old=0.5),
        place.file("models/elsewhere.bin", days_old=9),
    ]
    orphans = [
        place.file(f"{ROOT}/runs/{run.id}/0/run.duckdb", days_old=2),
        place.file(f"{ROOT}/runs/run_gone/1/run.json", days_old=2),
        place.file(f"{ROOT}/corpora/ds_1/ver_gone/corpus.duckdb", days_old=2),
        place.file(f"{ROOT}/exports/{export}/0/subset.parquet", days_old=2),
        place.file(f"{ROOT}/uploads/upl_gone", days_old=2),
        place.file(f"{ROOT}/tuned/abc/model.safetensors", days_old=2),
    ]
    assert retention.sweep(place.db, place.storage, DAY).files == len(orphans)
    assert [place.has(key) for key in orphans] == [False] * len(orphans)
    assert all(place.has(key) for key in referred + others)
    assert retention.sweep(place.db, place.storage, DAY).files == 0


def test_signals_go_when_no_run_was_measured_with_their_key_for_a_month(place: Place) -> None:
    key = ProxyKey("m", "r", "t", "float32", None, "truncate", "all", tied=False, signal_version=1)
    keys = [
        replace(key, revision=name) for name in ("base", "reference", "embedder", "reward", "nobody's", "new")
    ]
    run = place.run(place.version(1))
    lineage = {
        "proxy": keys[0].document(),
        "views": {"reference": {"proxy": keys[1].document(), "proxy_source": "s"}},
        "embedder": keys[2].document(),
        "reward_model": keys[3].document(),
    }
    with place.db.write() as session:
        session.get_one(Run, run.id).lineage = lineage
    signals = [
        place.file(f"{ROOT}/signals/{each.digest()}/{name}", days_old=40)
        for each in keys
        for name in ("key.json", "a.parquet")
    ]
    place.file(f"{ROOT}/signals/{keys[5].digest()}/b.parquet", days_old=1)
    job = place.job("running")
    assert retention.sweep(place.db, place.storage, DAY).files == 0
    with place.db.write() as session:
        session.get_one(Job, job).state = "succeeded"
    assert [each.key for each in retention.orphans(place.db, place.storage, DAY)] == sorted(signals[8:10])
    assert all(place.has(each) for each in signals)
    assert retention.sweep(place.db, place.storage, DAY).files == 2
    assert [place.has(each) for each in signals] == [True] * 8 + [False] * 2 + [True] * 2


def test_what_killed_processes_left_unfinished_goes(place: Place) -> None:
    old, young = (
        unfinished(place.storage.root / ROOT / "signals" / "abc" / "shard.parquet") for _ in range(2)
    )
    old.parent.mkdir(parents=True)
    for path in (old, young):
        path.write_bytes(b"half a shard")
    os.utime(old, (time.time() - 100_000, time.time() - 100_000))
    retention.sweep(place.db, place.storage, DAY)
    assert [path.name for path in old.parent.iterdir()] == [young.name]


def test_what_a_run_keeps_while_it_is_measured_stays_however_old_it_gets(place: Place) -> None:
    version = place.version(1)
    going_on = place.run(version, job_id=place.job("running"), published=False)
    over = place.run(version, job_id=place.job("failed"), published=False)
    plans = [place.file(f"{ROOT}/runs/{run.id}/plan.npy", days_old=3) for run in (going_on, over)]
    assert retention.sweep(place.db, place.storage, DAY).files == 1
    assert [place.has(plan) for plan in plans] == [True, False]


def upload(place: Place, name: str, *, hours_old: float = 0) -> str:
    key = place.file(f"{ROOT}/uploads/{name}")
    row = Upload(id=name, project_id="prj_1", key=key, name="a.json", bytes=7, sha256="s")
    row.created_at = utcnow() - timedelta(hours=hours_old)
    place.add(row)
    return key


def test_an_upload_goes_when_no_job_needs_it_any_more(place: Place) -> None:
    keys = {
        name: upload(place, name, hours_old=age)
        for name, age in (("done", 1), ("failed", 1), ("waiting", 50), ("unused", 1), ("given_up", 50))
    }
    for name, state in (("done", "succeeded"), ("failed", "failed"), ("waiting", "queued")):
        source = {"kind": "upload", "upload_id": name}
        place.job(state, "ingest", ingest={"dataset_id": "ds_1", "source": source, "mode": "create"})
    assert retention.sweep(place.db, place.storage, DAY).uploads == 3
    assert place.ids(Upload) == ["unused", "waiting"]
    assert {name for name, key in keys.items() if place.has(key)} == {"unused", "waiting"}


def test_replies_are_kept_for_a_day(place: Place) -> None:
    for name, age in (("new", 23), ("old", 25)):
        reply = Reply(id=name, token_id="tok_1", key=name, fingerprint="f", status=200)
        reply.created_at = utcnow() - timedelta(hours=age)
        place.add(reply)
    retention.sweep(place.db, place.storage, DAY)
    assert place.ids(Reply) == ["new"]
