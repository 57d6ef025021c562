"""Workers: what becomes of jobs that end well, badly, or not at all. The slow ones use real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.engine import make_url

from datapruner.catalog import migrations
from datapruner.catalog.database import Database
from datapruner.catalog.models import Job, utcnow
from datapruner.errors import (
    DataprunerError,
    InputError,
    ModelError,
    NothingSurvivedError,
    StorageError,
    UsageError,
    WorkerError,
)
from datapruner.measuring.workers import local
from datapruner.measuring.workers.spec import WorkerSpec
from datapruner.schemas.jobs import JobResult
from datapruner.service import queue, worker
from datapruner.service.context import Context
from datapruner.service.job_progress import JobProgress
from datapruner.service.queue import Lease
from datapruner.service.worker import PARENT, Perform, run_worker
from datapruner.settings import Settings
from tests.datapruner.service import queues
from tests.datapruner.service.queues import claim, entries, job, pass_time, project, started, submit
from tests.forked import Forked
from tests.panicking import panic
from tests.waiting import PATIENCE, has_ended, until

_STAND_IN = (str(Path(__file__).parents[1] / "measuring" / "workers" / "stand_in.py"),)


@pytest.fixture
def settings(sqlite_url: str, tmp_path: Path) -> Settings:
    """The lease is short, so that heartbeats come quickly; nobody here takes a job when it has run out."""
    return Settings(home=tmp_path / "home", database_url=sqlite_url, devices="cpu", lease_seconds=0.6)


@pytest.fixture
def working(settings: Settings) -> Iterator[Callable[[Perform], threading.Event]]:
    """Start a worker in a thread; the event that stops it."""
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def start(perform: Perform) -> threading.Event:
        worker = threading.Thread(
            target=run_worker, args=(settings,), kwargs={"perform": perform, "stop": stop}
        )
        threads.append(worker)
        worker.start()
        return stop

    yield start
    stop.set()
    for thread in threads:
        thread.join()


def _endless(context: Context, lease: Lease, progress: JobProgress) -> JobResult:
    progress.stage("working", None, "steps")
    while True:
        progress.check()
        time.sleep(0.01)


def test_a_job_is_done_and_its_result_and_progress_are_kept(db: Database, settings: Settings) -> None:
    def perform(context: Context, lease: Lease, progress: JobProgress) -> JobResult:
        assert context.settings == settings
        assert context.devices == ("cpu",)
        progress.stage("measuring", 2, "samples")
        progress.at(2)
        return JobResult(run_id=f"run of {lease.job.payload['work']}")

    owner = project(db)
    made = [submit(db, owner, payload={"work": name}).id for name in ("one", "two")]
    run_worker(settings, perform=perform, once=True)
    done = [job(db, each) for each in made]
    assert [each.state for each in done] == ["succeeded", "succeeded"]
    assert [(each.result or {})["run_id"] for each in done] == ["run of one", "run of two"]
    assert [(each.progress or {})["done"] for each in done] == [2, 2]


def test_a_measuring_process_with_nothing_to_do_ends_after_a_while(
    db: Database,
    working: Callable[[Perform], threading.Event],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    seen: list[int] = []

    def perform(context: Context, lease: Lease, progress: JobProgress) -> JobResult:
        spec = WorkerSpec("folder", "r", "float32", None, "truncate", "all", False, "cpu", None, None)
        task = local.Task([{"id": "a", "turns": [["assistant", "text", None]], "tools": None}], tmp_path)
        before = set(psutil.Process().children())
        assert not list(local.measure(spec, ["cpu"], [task], lambda *_: None, _STAND_IN, context.idle))
        seen.extend(child.pid for child in set(psutil.Process().children()) - before)
        return JobResult()

    monkeypatch.setattr(worker, "IDLE_SECONDS", 0.0)
    made = submit(db, project(db)).id
    working(perform)
    until(lambda: job(db, made).state == "succeeded")
    (pid,) = seen
    until(lambda: has_ended(pid))


@pytest.mark.parametrize(
    ("error", "state", "kind"),
    [
        (InputError("no such column"), "failed", "invalid-input"),
        (UsageError("no"), "failed", "invalid-request"),
        (ModelError("no"), "failed", "model-unavailable"),
        (NothingSurvivedError("no"), "failed", "nothing-survived"),
        (DataprunerError("no"), "failed", "internal"),
        (WorkerError("died"), "queued", "worker-failed"),
        (StorageError("full"), "queued", "storage-unavailable"),
        (OSError(28, "No space left on device"), "queued", "storage-unavailable"),
        (ZeroDivisionError("secret detail"), "queued", "internal"),
    ],
)
def test_errors_that_may_pass_are_tried_again_and_others_are_not(
    db: Database, settings: Settings, error: Exception, state: str, kind: str
) -> None:
    def perform(context: Context, lease: Lease, progress: JobProgress) -> JobResult:
        raise error

    made = submit(db, project(db))
    run_worker(settings, perform=perform, once=True)
    failed = job(db, made.id)
    assert (failed.state, failed.failures) == (state, 1)
    assert failed.error is not None
    assert failed.error["type"] == f"/problems/{kind}"
    assert "secret" not in str(failed.error)
    if isinstance(error, OSError):
        assert "No space left on device" in failed.error["detail"]


def test_a_panic_of_a_native_library_fails_the_attempt_and_not_the_worker(
    db: Database, settings: Settings
) -> None:
    made = submit(db, project(db))
    run_worker(settings, perform=lambda *_: panic(), once=True)
    failed = job(db, made.id)
    assert (failed.state, failed.failures) == ("queued", 1)
    assert failed.error is not None
    assert failed.error["type"] == "/problems/worker-failed"
    assert "a native library panicked" in failed.error["detail"]


@pytest.mark.parametrize(
    ("error", "least", "most"),
    [
        (WorkerError("died"), 0, 5),
        (OSError(28, "No space left on device"), 30, 150),
        (OSError(30, "Read-only file system"), 30, 150),
        (UsageError("cannot write"), 30, 150),
    ],
)
def test_an_attempt_that_failed_for_want_of_space_waits_for_somebody_to_make_room(
    db: Database, settings: Settings, error: Exception, least: float, most: float
) -> None:
    def perform(context: Context, lease: Lease, progress: JobProgress) -> JobResult:
        if isinstance(error, UsageError):
            raise error from OSError(122, "Disk quota exceeded")
        raise error

    made, began = submit(db, project(db)), utcnow()
    run_worker(settings, perform=perform, once=True)
    waiting = job(db, made.id)
    assert waiting.state == "queued"
    assert began + timedelta(seconds=least) <= waiting.run_after <= utcnow() + timedelta(seconds=most)


def test_a_cancelled_job_stops_at_a_heartbeat(
    db: Database, working: Callable[[Perform], threading.Event]
) -> None:
    made = submit(db, project(db))
    working(_endless)
    until(lambda: job(db, made.id).state == "running")
    with db.write() as session:
        queue.request_cancel(session, session.get_one(Job, made.id))
    until(lambda: job(db, made.id).state == "cancelled")


def test_heartbeats_keep_a_job_for_longer_than_its_lease(
    db: Database, working: Callable[[Perform], threading.Event]
) -> None:
    made = submit(db, project(db))
    working(_endless)
    until(lambda: job(db, made.id).state == "running")
    first = job(db, made.id).lease_until
    assert first is not None
    until(lambda: (job(db, made.id).lease_until or first) > first + timedelta(seconds=0.6))
    kept = job(db, made.id)
    assert (kept.state, kept.attempt, kept.failures) == ("running", 1, 0)
    assert (kept.progress or {})["stage"] == "working"


def test_a_worker_that_stops_gives_its_job_back(
    db: Database, working: Callable[[Perform], threading.Event]
) -> None:
    made = submit(db, project(db))
    stop = working(_endless)
    until(lambda: job(db, made.id).state == "running")
    stop.set()
    until(lambda: job(db, made.id).state == "queued")
    assert job(db, made.id).failures == 0
    assert claim(db).attempt == 2


def test_what_breaks_while_the_worker_stops_is_no_failure(
    db: Database, working: Callable[[Perform], threading.Event]
) -> None:
    begun = threading.Event()

    def perform(context: Context, lease: Lease, progress: JobProgress) -> JobResult:
        begun.set()
        stop.wait()
        raise WorkerError("the measuring process was interrupted too")

    made = submit(db, project(db))
    stop = threading.Event()
    inner = working(perform)
    begun.wait()
    inner.set()
    stop.set()
    until(lambda: job(db, made.id).state == "queued")
    assert job(db, made.id).failures == 0


def test_a_worker_drops_a_job_that_another_has_taken(
    db: Database, working: Callable[[Perform], threading.Event]
) -> None:
    dropped = threading.Event()

    def perform(context: Context, lease: Lease, progress: JobProgress) -> JobResult:
        try:
            return _endless(context, lease, progress)
        finally:
            dropped.set()

    made = submit(db, project(db))
    working(perform)
    until(lambda: job(db, made.id).state == "running")
    with db.write() as session:  # as another worker would
        taken = session.get_one(Job, made.id)
        taken.attempt, taken.worker = 2, "other"
    assert dropped.wait(PATIENCE)
    held = job(db, made.id)
    assert (held.state, held.attempt, held.worker, held.error) == ("running", 2, "other", None)


def test_a_postgresql_that_was_not_upgraded_stops_the_worker(postgres_url: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=postgres_url, devices="cpu")
    with pytest.raises(UsageError, match="datapruner db upgrade"):
        run_worker(settings, once=True)


def test_a_worker_that_an_upgrade_overtakes_ends_the_job_at_hand_and_takes_no_other(
    settings: Settings, db: Database
) -> None:
    jobs = [submit(db, project(db)).id for _ in range(2)]

    def perform(context: Context, lease: Lease, _: JobProgress) -> JobResult:
        with context.db.write() as session:
            session.execute(text("UPDATE alembic_version SET version_num = 'newer'"))
        return JobResult()

    with pytest.raises(UsageError, match="the database is at newer"):
        run_worker(settings, perform=perform, once=True)
    assert [job(db, each).state for each in jobs] == ["succeeded", "queued"]


def test_a_worker_outlasts_a_database_that_goes_away(
    postgres_url: str, postgres_server: Any, tmp_path: Path
) -> None:
    migrations.upgrade(postgres_url)
    db, admin = Database(postgres_url), Database(postgres_server.render_as_string(hide_password=False))
    name = make_url(postgres_url).database
    away = threading.Event()

    def reachable(is_so: bool) -> None:
        with admin.engine.connect() as connection:
            connection.execute(text("COMMIT"))
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {is_so}"))
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
                {"name": name},
            )

    def perform(context: Context, lease: Lease, progress: JobProgress) -> JobResult:
        progress.stage("working", None, "")
        if lease.job.payload["work"] == "through it":
            reachable(False)
            away.set()
            time.sleep(0.5)  # heartbeats fail meanwhile, and so does telling the end
        return JobResult(run_id="run_1")

    owner = project(db)
    made = [submit(db, owner, payload={"work": name}).id for name in ("through it", "after it")]
    settings = Settings(home=tmp_path, database_url=postgres_url, devices="cpu", lease_seconds=0.6)
    worker = threading.Thread(target=run_worker, args=(settings,), kwargs={"perform": perform, "once": True})
    worker.start()
    assert away.wait(PATIENCE)
    time.sleep(1.0)
    reachable(True)
    worker.join(PATIENCE)
    assert not worker.is_alive()
    done = [job(db, each) for each in made]
    assert [(each.state, each.attempt, each.failures) for each in done] == [("succeeded", 1, 0)] * 2
    db.close()
    admin.close()


# Real processes ---------------------------------------------------------------------------------------


@pytest.fixture
def processes() -> Iterator[list[Forked]]:
    """Whatever is in here is killed at the end."""
    running: list[Forked] = []
    yield running
    for process in running:
        process.kill()


@pytest.fixture
def place(database_url: str) -> Iterator[Database]:
    """A database of each kind that worker processes share."""
    migrations.upgrade(database_url)
    db = Database(database_url)
    yield db
    db.close()


@pytest.mark.slow
def test_600_jobs_over_4_processes_run_exactly_once_each_and_within_quotas(
    place: Database, database_url: str, tmp_path: Path, processes: list[Forked]
) -> None:
    log = tmp_path / "log"
    free, bounded = project(place), project(place, quota_jobs=2)
    with place.write() as session:
        for number in range(600):
            few = number % 20 == 0
            queue.submit(
                session,
                project_id=bounded if few else free,
                kind="run",
                payload={"log": str(log), "steps": 2 if few else 0},
            )
    processes += [started(database_url, tmp_path) for _ in range(4)]

    def left() -> int:
        with place.read() as session:
            return (
                session.scalar(
                    select(func.count()).select_from(Job).where(Job.state.in_(("queued", "running")))
                )
                or 0
            )

    until(lambda: left() == 0)
    written = entries(log)
    begun = [entry for entry in written if entry.what == "begin"]
    assert len(begun) == len({entry.job_id for entry in begun}) == 600
    assert {entry.attempt for entry in begun} == {1}
    with place.read() as session:
        ended = session.scalars(select(Job)).all()
    assert {each.state for each in ended} == {"succeeded"}
    assert {each.id: (each.result or {})["measured"] for each in ended} == {e.job_id: e.pid for e in begun}
    slow = {each.id for each in ended if each.project_id == bounded}
    running = most = 0
    for entry in sorted((e for e in written if e.job_id in slow), key=lambda e: e.at):
        running += 1 if entry.what == "begin" else -1
        most = max(most, running)
    assert most <= 2


@pytest.mark.slow
def test_the_job_of_a_killed_worker_is_retaken_after_its_lease(
    place: Database, database_url: str, tmp_path: Path, processes: list[Forked]
) -> None:
    log = tmp_path / "log"
    over = tmp_path / "over"
    made = submit(place, project(place), payload={"log": str(log), "until": str(over)})
    processes += [started(database_url, tmp_path) for _ in range(2)]
    victim = until(lambda: entries(log))[0].pid
    os.kill(victim, signal.SIGKILL)
    over.touch()
    pass_time(place, made.id)
    until(lambda: job(place, made.id).state == "succeeded")
    first, second, end = entries(log)
    assert (first.attempt, second.attempt, end.what) == (1, 2, "end")
    assert second.pid == end.pid != victim
    done = job(place, made.id)
    assert (done.failures, done.result) == (1, done.result and {**done.result, "measured": end.pid})


@pytest.mark.slow
def test_a_worker_that_was_frozen_wakes_up_fenced(
    postgres_url: str, tmp_path: Path, processes: list[Forked]
) -> None:
    migrations.upgrade(postgres_url)
    db, log = Database(postgres_url), tmp_path / "log"
    over = tmp_path / "over"
    made = submit(db, project(db), payload={"log": str(log), "until": str(over), "deaf": True})
    processes.append(started(postgres_url, tmp_path))
    until(lambda: entries(log))
    processes[0].send(signal.SIGSTOP)
    until(lambda: psutil.Process(processes[0].pid).status() == psutil.STATUS_STOPPED)
    pass_time(db, made.id)
    lease = claim(db, "other")
    over.touch()
    processes[0].send(signal.SIGCONT)  # comes to the end of its work and wants to tell of its success
    until(lambda: [entry.what for entry in entries(log)] == ["begin", "end"])
    processes[0].send(signal.SIGTERM)
    assert processes[0].wait() == 0
    held = job(db, made.id)
    assert (held.state, held.attempt, held.worker, held.result) == ("running", lease.attempt, "other", None)
    db.close()


@pytest.mark.slow
def test_sigterm_gives_the_job_back_and_a_second_one_ends_the_process_at_once(
    db: Database, settings: Settings, tmp_path: Path, processes: list[Forked]
) -> None:
    log, owner = tmp_path / "log", project(db)
    gentle = submit(db, owner, payload={"log": str(log), "steps": 1000})
    processes.append(started(settings.database, tmp_path))
    until(lambda: entries(log))
    processes[0].send(signal.SIGTERM)
    until(lambda: job(db, gentle.id).state == "queued")
    assert processes[0].wait() == 0
    with db.write() as session:
        queue.request_cancel(session, session.get_one(Job, gentle.id))

    deaf = submit(db, owner, payload={"log": str(log), "steps": 1000, "deaf": True})
    processes.append(started(settings.database, tmp_path))
    until(lambda: [entry for entry in entries(log) if entry.job_id == deaf.id])
    processes[1].send(signal.SIGTERM)
    time.sleep(0.5)
    assert processes[1].poll() is None
    # A process that has not yet seen the first one sees one of the two only.
    until(lambda: processes[1].poll() is not None or processes[1].send(signal.SIGTERM))
    assert processes[1].wait() == 128 + signal.SIGTERM
    assert job(db, deaf.id).state == "running"  # until its lease runs out


@pytest.mark.slow
def test_a_worker_ends_with_its_parent(db: Database, settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "log"
    made = submit(db, project(db), payload={"log": str(log), "steps": 1000})
    code = (
        f"import os, sys; from pathlib import Path; os.environ[{PARENT!r}] = str(os.getpid())\n"
        f"from {queues.__name__} import started\n"
        "started(sys.argv[1], Path(sys.argv[2])).wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, settings.database, str(tmp_path)], cwd=queues.ROOT)
    try:
        worker = until(lambda: entries(log))[0].pid
    finally:
        parent.kill()
        parent.wait()
    until(lambda: job(db, made.id).state == "queued")
    until(lambda: has_ended(worker))


def test_a_worker_does_not_start_with_a_cluster_that_it_could_never_use(settings: Settings) -> None:
    wrong = settings.model_copy(update={"engine": "ray", "ray_address": "ray://head:10001"})
    with pytest.raises(UsageError, match="is no address of a Ray cluster"):
        run_worker(wrong, once=True)
