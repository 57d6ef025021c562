"""Jobs done in the process of the test: the real queue, storage and corpora of a project `prj_1`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datapruner.catalog import datasets
from datapruner.catalog.database import Database
from datapruner.catalog.models import Base, Dataset, Upload, new_id
from datapruner.measuring.workers.local import IdleWorkers
from datapruner.progress import Silent
from datapruner.schemas.jobs import JobResult
from datapruner.service import queue
from datapruner.service.context import Context
from datapruner.service.storage import open_storage
from datapruner.service.work import perform
from datapruner.settings import Settings
from tests.datapruner.service.queues import LEASE


@contextmanager
def opened(home: Path, roots: list[Path], idle: IdleWorkers) -> Iterator[Context]:
    """A worker's context, with what is in this home already."""
    settings = Settings(home=home, import_roots=roots, devices="cpu")
    db = Database(settings.database)
    Base.metadata.create_all(db.engine)
    try:
        yield Context(settings, db, open_storage(settings.files, home / "cache"), ("cpu",), idle)
    finally:
        db.close()


def dataset(context: Context, name: str = "motley", **more: Any) -> Dataset:
    with context.db.write() as session:
        return datasets.create(session, "prj_1", name, **more)


def upload(context: Context, path: Path) -> dict[str, Any]:
    upload_id = new_id("upl")
    key = f"projects/prj_1/uploads/{upload_id}"
    copy = context.settings.home / upload_id
    copy.write_bytes(path.read_bytes())
    size = context.storage.publish(copy, key)
    with context.db.write() as session:
        session.add(Upload(id=upload_id, project_id="prj_1", key=key, name=path.name, bytes=size, sha256=""))
    return {"kind": "upload", "upload_id": upload_id}


def work(context: Context, **payload: Any) -> JobResult:
    """Submit a job, take it and do it."""
    return perform(context, taken(context, **payload), Silent())


def taken(context: Context, **payload: Any) -> queue.Lease:
    with context.db.write() as session:
        queue.submit(session, project_id="prj_1", kind="prune", payload=payload)
    lease = queue.claim(context.db, "tester", LEASE)
    assert lease is not None
    return lease


def ingest(target: Dataset, source: dict[str, Any], mode: str = "create") -> dict[str, Any]:
    return {"dataset_id": target.id, "source": source, "mode": mode}


def again(context: Context, lease: queue.Lease) -> queue.Lease:
    """The same job, given back and taken by another worker."""
    queue.release(context.db, lease)
    found = queue.claim(context.db, "other", LEASE)
    assert found is not None
    return found


class StoppedError(Exception):
    """By the test."""


class StopsAt(Silent):
    """Stops when this stage begins."""

    def __init__(self, stage: str) -> None:
        self.wanted = stage

    def stage(self, name: str, total: int | None, unit: str) -> None:
        if name == self.wanted:
            raise StoppedError
