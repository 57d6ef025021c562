"""Where jobs build their files, and what is left there of workers that were killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from datapruner.catalog.database import Database
from datapruner.catalog.models import utcnow
from datapruner.progress import Progress
from datapruner.schemas.jobs import JobResult
from datapruner.service.context import Context
from datapruner.service.queue import Lease
from datapruner.service.scratch import sweep, working
from datapruner.service.worker import run_worker
from datapruner.settings import Settings
from tests.datapruner.service import queues
from tests.waiting import until

_WORKING = """
import sys
from pathlib import Path
from datapruner.service.scratch import working
with working(Path(sys.argv[1]), "job_1") as folder:
    (folder / "merged.duckdb").write_bytes(bytes(1000))
    print(folder, flush=True)
    sys.stdin.read()
"""


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.exists() else []


@pytest.fixture
def other(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process, which works in a folder below `tmp_path / work`; and that folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WORKING, str(tmp_path / "work")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=queues.ROOT,
    )
    assert process.stdout is not None
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.communicate()


def test_a_folder_is_gone_with_its_job_however_that_ends(tmp_path: Path) -> None:
    with working(tmp_path, "job_1") as first, working(tmp_path, "job_1") as second:
        assert first != second
        (first / "below").mkdir()
        (first / "below" / "x").write_text("x")
        assert len(folders(tmp_path)) == 2
    with pytest.raises(FileNotFoundError), working(tmp_path, "job_1") as folder:
        (folder / "missing").read_text()
    assert folders(tmp_path) == []


def test_what_is_in_use_stays_and_what_a_killed_process_left_goes_at_once(
    tmp_path: Path, other: tuple[subprocess.Popen[str], Path]
) -> None:
    process, folder = other
    root = tmp_path / "work"
    with working(root, "job_2") as ours:
        (ours / "x").write_text("x")
        sweep(root)
        assert folders(root) == sorted([folder.name, ours.name])
        assert (ours / "x").read_text() == "x"
        os.kill(process.pid, signal.SIGSTOP)  # silent for long, yet at work
        sweep(root)
        assert (folder / "merged.duckdb").exists()
        process.kill()
        process.wait()
        sweep(root)
        assert folders(root) == [ours.name]


def test_a_sweep_minds_folders_alone_and_needs_none(tmp_path: Path) -> None:
    sweep(tmp_path / "new")
    (tmp_path / "new" / "file").write_text("x")
    (tmp_path / "new" / "left-by-an-earlier-version").mkdir()
    sweep(tmp_path / "new")
    assert folders(tmp_path / "new") == []
    assert (tmp_path / "new" / "file").exists()


@pytest.fixture
def settings(sqlite_url: str, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, database_url=sqlite_url, devices="cpu", lease_seconds=0.6)


def test_a_worker_that_starts_sweeps_what_a_killed_one_left_before_its_job_is_taken_again(
    db: Database, settings: Settings, other: tuple[subprocess.Popen[str], Path]
) -> None:
    process, folder = other
    held = queues.submit(db, queues.project(db))
    queues.claim(db)  # by the worker that is killed; its lease lasts
    process.kill()
    process.wait()
    run_worker(settings, once=True)
    assert not folder.exists()
    assert queues.job(db, held.id).state == "running"


def test_a_worker_sweeps_after_each_job_what_another_has_left_meanwhile(
    db: Database, settings: Settings, other: tuple[subprocess.Popen[str], Path]
) -> None:
    process, folder = other

    def perform(context: Context, lease: Lease, progress: Progress) -> JobResult:
        assert folder.exists()
        process.kill()
        process.wait()
        return JobResult()

    made = queues.submit(db, queues.project(db))
    stop = threading.Event()
    worker = threading.Thread(target=run_worker, args=(settings,), kwargs={"perform": perform, "stop": stop})
    worker.start()
    try:
        until(lambda: queues.job(db, made.id).state == "succeeded")
        until(lambda: not folder.exists())
    finally:
        stop.set()
        worker.join()


def test_a_home_without_room_for_folders_stops_no_worker(db: Database, settings: Settings) -> None:
    (settings.home / "work").write_text("no folder")
    made, began = queues.submit(db, queues.project(db), payload={"work": "none"}), utcnow()
    run_worker(settings, once=True)
    failed = queues.job(db, made.id)
    assert (failed.state, failed.failures) == ("queued", 1)
    assert failed.run_after > began
