"""A worker: claims jobs, keeps their leases while it works on them, and says how they ended.

Notable choices:
- the work runs in this thread and is kept alive by a thread beside it, which also learns of a cancellation;
- what is stopped half-way, by a signal or a cancellation, counts as that however it came out: measuring
  processes that a Ctrl-C takes down first would otherwise look like a failure;
- a database that cannot be reached is waited for. A lease that runs out meanwhile is still good unless
  another worker has taken it, and then nothing that this one does has an effect.
"""

from __future__ import annotations

import _thread
import contextvars
import itertools
import math
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from types import FrameType
from typing import Any, TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from datapruner.catalog import migrations
from datapruner.catalog.changes import Changes
from datapruner.catalog.database import Database
from datapruner.errors import DataprunerError, StorageError, WorkerError
from datapruner.measuring.cluster import executor
from datapruner.measuring.cluster.executor import Cluster
from datapruner.measuring.devices import find_devices
from datapruner.measuring.workers.local import IdleWorkers
from datapruner.schemas.jobs import JobResult
from datapruner.service import queue, scratch, work
from datapruner.service.context import Context
from datapruner.service.job_progress import JobProgress
from datapruner.service.problems import problem
from datapruner.service.queue import Cancelled, Lease, LeaseLostError, Released
from datapruner.service.storage import open_storage
from datapruner.settings import Settings
from datapruner.system import space
from datapruner.system.panics import contained
from datapruner.system.space import NoSpaceError
from datapruner.tracking.following import check as check_trackers

PARENT = "DATAPRUNER_PARENT"
POLL_SECONDS = 0.25
_BEAT_SECONDS = 1.0
_PARENT_SECONDS = 0.5
_SWEEP_SECONDS = 60.0
_LAST_TRIES = 3
IDLE_SECONDS = 600.0
"""After so long, the memory of a measuring process is worth more than the seconds that a new one takes."""
_UNREACHABLE = (OperationalError, InterfaceError, NoConnectionError)

Perform = Callable[[Context, Lease, JobProgress], JobResult]
T = TypeVar("T")
log = structlog.get_logger(__name__)


def run_worker(
    settings: Settings,
    *,
    perform: Perform = work.perform,
    stop: threading.Event | None = None,
    once: bool = False,
) -> None:
    """Work until `stop` is set, SIGTERM or SIGINT comes, or the parent named in DATAPRUNER_PARENT is gone.

    The job at hand is then given back at its next report of progress; a second signal ends the process at
    once. With `once`, return when there is nothing to do. Raises UsageError when the database is not of this
    version of datapruner, or is brought to another one meanwhile; then the job at hand is done first. Or when
    a tracker that the settings name is not there, or the engine ray is set and cannot be used.
    """
    stop = stop or threading.Event()
    check_trackers(settings.log_to)
    db = Database(settings.database)
    idle = IdleWorkers()
    try:
        with _stopping_on_signals(stop):
            _stop_with_parent(stop)
            _insist("checking the database", partial(migrations.ensure_current, db), stop)
            if stop.is_set():
                return
            if settings.engine == "ray":
                executor.check(Cluster(settings.ray_address or None))
            context = Context(
                settings=settings,
                db=db,
                storage=open_storage(settings.files, settings.home / "cache", settings.cache_bytes),
                devices=find_devices("auto" if settings.engine == "ray" else settings.devices),
                idle=idle,
            )
            _Worker(context, perform, stop).run(once)
    finally:
        idle.close()
        db.close()


class _Worker:
    def __init__(self, context: Context, perform: Perform, stop: threading.Event) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._context = context
        self._db = context.db
        self._perform = perform
        self._stop = stop
        self._lease_seconds = context.settings.lease_seconds
        self._revision = migrations.newest()

    def run(self, once: bool) -> None:
        log.info("worker started", worker=self.name, devices=self._context.devices)
        with closing(Changes(self._db)) as changes:
            self._work(changes, once)
        log.info("worker stopped", worker=self.name)

    def _work(self, changes: Changes, once: bool) -> None:
        swept = -math.inf
        while not self._stop.is_set():
            if time.monotonic() - swept > _SWEEP_SECONDS:
                self._sweep()
                swept = time.monotonic()
            claim = partial(queue.claim, self._db, self.name, self._lease_seconds, self._revision)
            lease = self._insist("claiming", claim)
            if lease is not None:
                with structlog.contextvars.bound_contextvars(
                    job_id=lease.job_id, attempt=lease.attempt, request_id=lease.job.request_id
                ):
                    self._do(lease)
                swept = -math.inf  # whoever had the job before may have left its files
            elif once:
                break
            else:
                self._context.idle.end_waiting(IDLE_SECONDS)
                changes.wait(POLL_SECONDS, self._stop)

    def _sweep(self) -> None:
        try:
            scratch.sweep(self._context.scratch)
        except OSError as error:
            log.warning("what killed workers left stays for now", error=str(error))

    def _do(self, lease: Lease) -> None:
        log.info("job started", kind=lease.job.kind)
        progress = JobProgress(self._stop)
        try:
            with self._kept(lease, progress):
                outcome, settle = self._attempt(lease, progress)
            self._insist("settling the job", settle)
        except LeaseLostError:
            log.warning("job lost: another worker has it now, or it has ended")
        else:
            log.info(f"job {outcome}")

    def _attempt(self, lease: Lease, progress: JobProgress) -> tuple[str, Callable[[], None]]:
        """Do the work; how it went in a word, and what tells the queue so. Raises LeaseLostError."""
        try:
            with contained():
                result = self._perform(self._context, lease, progress)
        except Exception as error:
            match progress.interruption or error:
                case LeaseLostError() as lost:
                    raise lost from error
                case Cancelled():
                    return "cancelled", partial(queue.cancelled, self._db, lease)
                case Released():
                    return "given back", partial(queue.release, self._db, lease)
            return "failed", self._failed(lease, error)
        document = result.model_dump(mode="json")
        return "succeeded", partial(queue.finish, self._db, lease, document, progress.snapshot())

    def _failed(self, lease: Lease, error: Exception) -> Callable[[], None]:
        error = space.told(error)
        ours = isinstance(error, DataprunerError)
        retry = not ours or isinstance(error, WorkerError | StorageError)
        log.warning("attempt failed", error=str(error), may_retry=retry, exc_info=not ours)
        if isinstance(error, OSError):
            error = StorageError(error.strerror or "files cannot be used", remedy="see the log of the worker")
        elif isinstance(error, _UNREACHABLE):
            error = StorageError("the metadata database cannot be used", remedy="see the log of the worker")
        pause = queue.SPACE_SECONDS if isinstance(error, NoSpaceError) else queue.BACKOFF_SECONDS
        return partial(queue.fail, self._db, lease, problem(error), retry=retry, pause=pause)

    @contextmanager
    def _kept(self, lease: Lease, progress: JobProgress) -> Iterator[None]:
        """Keep the lease, in a thread of its own, until the block ends."""
        done = threading.Event()
        keep = partial(contextvars.copy_context().run, self._keep, lease, progress, done)
        thread = threading.Thread(target=keep, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _keep(self, lease: Lease, progress: JobProgress, done: threading.Event) -> None:
        sent: dict[str, Any] | None = None
        while not done.wait(min(_BEAT_SECONDS, self._lease_seconds / 3)):
            snapshot = progress.snapshot()
            news = None if snapshot == sent else snapshot
            try:
                if queue.heartbeat(self._db, lease, news, self._lease_seconds):
                    progress.interrupt(Cancelled())
                sent = snapshot
            except LeaseLostError as error:
                progress.interrupt(error)
                return
            except _UNREACHABLE as error:
                log.warning("no heartbeat: the database cannot be reached", error=str(error))
            except Exception:  # without this thread nobody would learn that the lease is lost
                log.exception("no heartbeat")

    def _insist(self, doing: str, call: Callable[[], T]) -> T | None:
        return _insist(doing, call, self._stop)


def _insist(doing: str, call: Callable[[], T], stop: threading.Event) -> T | None:
    """Call until the database can be reached; None when the worker is to stop before that."""
    wait = 0.1
    for tries in itertools.count(1):
        try:
            return call()
        except _UNREACHABLE as error:
            log.warning("the database cannot be reached", doing=doing, error=str(error), again_after=wait)
        if stop.wait(wait) and tries >= _LAST_TRIES:
            break
        wait = min(wait * 2, 2.0)
    return None


@contextmanager
def _stopping_on_signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set `stop`; one that comes when it is set ends the process at once."""
    if threading.current_thread() is not threading.main_thread():  # only that one gets signals
        yield
        return

    told = False

    def stop_now(number: int, _: FrameType | None) -> None:
        nonlocal told
        if told or stop.is_set():
            os._exit(128 + number)
        told = True
        # This thread may be inside the event's own lock just now; another one can wait for it.
        _thread.start_new_thread(stop.set, ())

    before = {number: signal.signal(number, stop_now) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_with_parent(stop: threading.Event) -> None:
    """Set `stop` when the process that started this one is gone, if it wants that."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return

    def watch() -> None:
        while not stop.wait(_PARENT_SECONDS):
            if os.getppid() != int(parent):
                stop.set()

    threading.Thread(target=watch, name="parent", daemon=True).start()
