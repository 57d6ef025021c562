"""`serve`: the API, worker processes and the scheduler, started, watched and stopped together.

Notable choices:
- workers are processes in sessions of their own: Ctrl-C reaches only us, and we tell them; should we be
  killed, they see that their parent is gone and end as well;
- a worker that dies comes back, later each time that it dies young;
- on SIGTERM the service says that it leaves, and serves on until balancers have seen that. Then, and at once
  on SIGINT or a second signal, everything is told to end: what waits inside requests does, workers give back
  their leases, and who has not ended in time is killed;
- a signal is only noted where it comes: it may interrupt this thread inside the lock of an event.
"""

from __future__ import annotations

import _thread
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType
from typing import Any

import structlog
import uvicorn

from datapruner.catalog.database import Database
from datapruner.errors import UsageError, WorkerError
from datapruner.service import firing, retention
from datapruner.service.stopping import Stopping
from datapruner.service.storage import open_storage
from datapruner.settings import Settings
from datapruner.system.panics import contained
from scorers.interpreter import PYTHON

_WORKERS_END = 8.0  # seconds after they are told
_IDLE = 130  # seconds: proxies close idle connections sooner, and send nothing into one that is being closed
_TICK, _TICK_AFTER_ERROR = 1.0, 5.0
_FIRST_SWEEP, _SWEEP = 60.0, 3600.0
_UNUSED_FOR = timedelta(days=1)
_FIRST_PAUSE, _LONGEST_PAUSE, _GROWN_UP = 0.5, 30.0, 60.0
_LOOK_EVERY = 0.2
_log = structlog.get_logger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on the address; port 0 is any free one. Raises UsageError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(1024)
    except OSError as error:
        bound.close()
        raise UsageError(
            f"cannot listen on {host} port {port}: {error.strerror or error}",
            remedy="give another --host or --port; 0 takes any free port",
        ) from error
    return bound


def run(
    app: Any,
    settings: Settings,
    db: Database,
    stopping: Stopping,
    listening: socket.socket,
    announce: Callable[[], None],
) -> None:
    """Serve the ASGI application until a signal or `stopping` ends it; `announce` is called once it answers.

    Raises WorkerError when the application cannot start.
    """
    stop = stopping.ended
    before = {
        number: signal.signal(number, lambda *_: _end_soon(stopping))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    config = uvicorn.Config(
        app,
        loop="asyncio",  # these, whatever else is installed
        http="h11",
        ws="none",
        log_config=None,
        access_log=False,  # the application's own lines know more
        server_header=False,
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=settings.finish_seconds,
    )
    others = [
        threading.Thread(target=_watch, args=(settings, stop), name="workers"),
        threading.Thread(target=_schedule, args=(db, settings, stop), name="scheduler"),
        threading.Thread(target=_sweep, args=(db, settings, stop), name="sweeper"),
    ]
    server = _Server(config, stopping, settings.drain_seconds, others, announce)
    try:
        server.run(sockets=[listening])
    except SystemExit as error:  # how uvicorn says that the application did not start
        raise WorkerError("the API could not start", remedy="the log lines above say why") from error
    finally:
        stopping.end()
        for thread in others:
            if thread.ident is not None:
                thread.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_soon(stopping: Stopping) -> None:
    """End by another thread, which can wait for a lock that this one may hold just now."""
    _thread.start_new_thread(stopping.end, ())


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        stopping: Stopping,
        drain_seconds: float,
        others: list[threading.Thread],
        announce: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._stopping, self._others, self._announce = stopping, others, announce
        self._drain_seconds = drain_seconds
        self._until: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for thread in self._others:
            thread.start()
        self._announce()

    async def on_tick(self, counter: int) -> bool:
        if self._until is not None:
            if self._drain_seconds and not self._stopping.leaving.is_set():
                _log.info("leaving", serves_for=self._drain_seconds)
            self._stopping.leaving.set()
            self.should_exit = self.should_exit or time.monotonic() >= self._until
        over = await super().on_tick(counter) or self._stopping.ended.is_set()
        if over:
            self._stopping.end()
        return over

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM and self._until is None:
            self._until = time.monotonic() + self._drain_seconds
        else:
            super().handle_exit(sig, frame)


def _schedule(db: Database, settings: Settings, stop: threading.Event) -> None:
    pause = _TICK
    while not stop.wait(pause):
        try:
            with contained():
                firing.tick(db, settings)
            pause = _TICK
        except Exception:  # the database may be away for a while; the schedules are still there afterwards
            _log.exception("scheduler failed, tries again")
            pause = _TICK_AFTER_ERROR


def _sweep(db: Database, settings: Settings, stop: threading.Event) -> None:
    """Now and then delete the files that nothing refers to: what crashes, failures and deletions left."""
    pause = _FIRST_SWEEP
    while not stop.wait(pause):
        pause = _SWEEP
        try:
            storage = open_storage(settings.files, settings.home / "cache", settings.cache_bytes)
            with contained():
                swept = retention.sweep(db, storage, _UNUSED_FOR)
            _log.info("swept", files=swept.files, uploads=swept.uploads)
        except Exception:
            _log.exception("sweeping failed, tries again later")


@dataclass
class _Place:
    """Where one worker runs, again and again."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    due: float = 0.0
    pause: float = field(default=_FIRST_PAUSE)

    def put_off(self, now: float) -> None:
        """Let the next start wait, each time longer."""
        self.due = now + self.pause
        self.pause = min(self.pause * 2, _LONGEST_PAUSE)


def _watch(settings: Settings, stop: threading.Event) -> None:
    """Keep the workers running until `stop`, then end them."""
    places = [_Place(number) for number in range(settings.workers)]
    while not stop.is_set():
        for place in places:
            _look_after(place)
        stop.wait(_LOOK_EVERY if places else None)
    _end([place.process for place in places if place.process is not None])


def _look_after(place: _Place) -> None:
    now = time.monotonic()
    if place.process is not None:
        code = place.process.poll()
        if code is None:
            return
        if now - place.started > _GROWN_UP:
            place.pause = _FIRST_PAUSE
        _log.error("worker died", worker=place.number, exit_code=code, restart_in=place.pause)
        place.process = None
        place.put_off(now)
    if now < place.due:
        return
    try:
        place.process = _start_worker()
    except OSError as error:  # the machine may have room for another process later
        _log.error("worker cannot be started", worker=place.number, error=str(error), again_in=place.pause)
        place.put_off(now)
        return
    place.started = now
    _log.info("worker started", worker=place.number, pid=place.process.pid)


def _start_worker() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*PYTHON, "-m", "datapruner", "worker"],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "DATAPRUNER_PARENT": str(os.getpid())},
        start_new_session=True,
    )


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    until = time.monotonic() + _WORKERS_END
    for process in processes:
        try:
            process.wait(max(until - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            _log.error("worker did not end in time and is killed; its lease runs out", pid=process.pid)
            process.kill()
            process.wait()
