"""Jobs on a disk that turns unfit: they wait, say why without a path, and go on where they stood."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from datapruner.catalog import datasets
from datapruner.catalog.database import Database
from datapruner.catalog.models import Job, Project, Upload, utcnow
from datapruner.progress import Progress
from datapruner.request.config import Measuring, MethodChoice, RunConfig
from datapruner.request.keep import Keep
from datapruner.schemas.jobs import JobResult
from datapruner.service import queue, work
from datapruner.service.context import Context
from datapruner.service.queue import Lease
from datapruner.service.storage import FolderStorage
from datapruner.service.worker import run_worker
from datapruner.settings import Settings
from tests.datapruner.service import queues
from tests.disks import Disk

STAGES = ["ingesting", "adding to the latest version", "measuring", "writing", "publishing", "exporting"]


class Spoiling:
    """The listener; from the beginning of a stage on the disk is unfit."""

    def __init__(self, progress: Progress, spoil: Callable[[], None], stage: str | None) -> None:
        self._progress, self._spoil, self._stage = progress, spoil, stage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._progress, name)

    def stage(self, name: str, total: int | None, unit: str) -> None:
        self._progress.stage(name, total, unit)
        if name == self._stage:
            self._spoil()


@pytest.fixture(params=["full", "read-only"])
def how(request: pytest.FixtureRequest) -> str:
    """What becomes of the disk."""
    return str(request.param)


@pytest.fixture
def settings(how: str, small_disk: Disk, sqlite_url: str, tiny_folder: Path, tmp_path: Path) -> Settings:
    """All files are on the disk that fills up; on one that turns read-only, which no file may be open for
    writing on, only the storage is. The database is on neither."""
    home = (small_disk.path if how == "full" else tmp_path) / "home"
    home.mkdir()
    return Settings(
        home=home,
        storage=str(small_disk.path / "files"),
        database_url=sqlite_url,
        import_roots=[tiny_folder],
        devices="cpu",
        threads=1,
    )


def submitted(db: Database, settings: Settings, model: Path, mode: str, attempts: int) -> str:
    """A prune job over an upload of its own to the dataset `numbers`; its id."""
    rows = settings.home / "rows"
    rows.write_text("".join(f'{{"prompt": "{mode} {i}", "completion": "It is {i}."}}\n' for i in range(40)))
    key = f"projects/prj_1/uploads/upl_{mode}"
    size = FolderStorage(Path(settings.files)).publish(rows, key)
    config = RunConfig(
        measuring=Measuring(model=str(model)), methods=[MethodChoice(name="qtuning")], keep=Keep(share=0.5)
    )
    with db.write() as session:
        if session.get(Project, "prj_1") is None:
            session.add(Project(id="prj_1", name="default"))
            session.flush()
            datasets.create(session, "prj_1", "numbers")
        target = datasets.find(session, "prj_1", "numbers").id
        session.add(
            Upload(id=f"upl_{mode}", project_id="prj_1", key=key, name="rows.jsonl", bytes=size, sha256="")
        )
        source = {"kind": "upload", "upload_id": f"upl_{mode}"}
        payload: dict[str, Any] = {"ingest": {"dataset_id": target, "source": source, "mode": mode}}
        if mode != "create":
            payload |= {
                "run": {"dataset_id": target, "version_id": None, "config": config.model_dump(mode="json")},
                "export": {"format": "parquet"},
            }
        return queue.submit(
            session, project_id="prj_1", kind="prune", payload=payload, max_attempts=attempts
        ).id


@pytest.mark.slow
@pytest.mark.usefixtures("lent")
def test_a_job_waits_for_a_fit_disk_at_every_stage_and_then_goes_on(
    db: Database, settings: Settings, how: str, small_disk: Disk, tiny_folder: Path, tmp_path: Path
) -> None:
    first = submitted(db, settings, tiny_folder, "create", 3)
    run_worker(settings, once=True)
    assert queues.job(db, first).state == "succeeded"
    spoil, reason = {
        "full": (small_disk.fill, "No space left on device"),
        "read-only": (small_disk.protect, "Read-only file system"),
    }[how]
    job_id = submitted(db, settings, tiny_folder, "append", len(STAGES) + 1)

    def attempt(stage: str | None) -> Job:
        def perform(context: Context, lease: Lease, progress: Progress) -> JobResult:
            listener: Any = Spoiling(progress, spoil, stage)
            return work.perform(context, lease, listener)

        with db.write() as session:  # as if the wait were over
            session.get_one(Job, job_id).run_after = utcnow()
        run_worker(settings, perform=perform, once=True)
        small_disk.relieve()
        return queues.job(db, job_id)

    for number, stage in enumerate(STAGES, start=1):
        tried = attempt(stage)
        assert (tried.state, tried.failures) == ("queued", number), (stage, tried.error)
        assert tried.error is not None
        assert (tried.error["type"], tried.error["status"]) == ("/problems/storage-unavailable", 503), stage
        assert reason in tried.error["detail"], stage
        told = json.dumps([tried.error, tried.progress, tried.result])
        assert str(small_disk.path) not in told, stage
        assert str(tmp_path) not in told, stage
        assert tried.run_after - utcnow() > timedelta(seconds=30), stage
    assert attempt(None).state == "succeeded"
