"""Measure on this machine: one worker process per device, fed task by task.

Notable choices:
- a finished task is a file of the signal cache, so a crash at any moment costs the tasks in flight at most;
- a worker is sent its next tasks, and the model to load, without waiting for it;
- when a worker dies, the tasks it had are tried again one by one, each alone in a process; the one that kills
  it again is cut in two and each half tried, until the one sample that kills it stands alone and is reported
  as failed;
- when worker after worker dies before any task is done, it is not the samples' fault: measuring is given up;
- workers are plain `python -m` subprocesses, so that a script that calls us needs no main guard, and the
  parent never imports torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from datapruner.errors import ModelError, UsageError, WorkerError, without_paths
from datapruner.measuring.signal_cache import shard_name
from datapruner.measuring.workers.spec import WorkerSpec, spec_line
from datapruner.measuring.workers.start import START
from datapruner.system import space
from scorers.interpreter import PYTHON

OnProgress = Callable[[int, int], None]
"""Called with (rows, tokens) measured since the last call; negative when a worker's death undid some."""

WORKER = (*START, "worker")
TOKENISER = (*START, "tokeniser")
"""Arguments of the Python interpreter that start a worker: with a model, or a tokenizer alone."""

_PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that wait must not spin: beside any other busy process, spinning halves a worker's speed."""

_HOPELESS = 16
"""Deaths before the first finished task that end the run: more than isolating one sample of 8,192 takes."""

_AHEAD = 3
"""Tasks that a process has: the one it measures, the one before, which it writes, and the next, so that it
never waits for us."""

_PART_ROWS = 256
"""Samples of a line of a task."""

_WAKE_SECONDS = 0.2
_END_SECONDS = 10.0  # for a process that was told that nothing more comes
"""How often the waiting thread looks up: polars' signal handler keeps Ctrl-C from ending an endless wait."""


@dataclass(frozen=True, slots=True)
class Task:
    """Samples to measure into one shard: wire form of the samples, and the folder the shard goes to.

    about: what else the worker is told. name: of the file instead of the shard's. whole: the result is of all
    samples together, so that a task that kills its worker twice ends the measuring.
    """

    samples: Sequence[dict[str, Any]]
    folder: Path
    about: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    whole: bool = False
    alone: bool = False
    """Whether a worker already died that had it."""
    suspect: bool = False
    """Whether it was the first of those it had."""

    @property
    def out(self) -> Path:
        return self.folder / (self.name or shard_name([sample["id"] for sample in self.samples]))


class IdleWorkers:
    """Measuring processes that wait, model loaded, for the next measuring of the same kind.

    At most one per device. One that is taken for another model lets go of its own first: what takes seconds
    is to start, not to load.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, _Process] = {}

    def take(self, worker: Sequence[str], spec: WorkerSpec) -> _Process | None:
        """The process of this kind that waits on the device, if there is one. It may have another model."""
        with self._lock:
            held = self._waiting.pop(spec.device, None)
        if held is None:
            return None
        assert held.spec is not None, "it was given a model"
        same_threads = held.spec.threads == spec.threads  # which cannot be taken back
        if held.worker == tuple(worker) and same_threads and held.alive:
            held.waited = True
            return held
        held.close()
        return None

    def begin(self, worker: Sequence[str], spec: WorkerSpec) -> None:
        """Start a process, which loads its model meanwhile. Raises WorkerError."""
        process = _Process(worker)
        process.load(spec)
        self.give(process)

    def give(self, process: _Process) -> None:
        """Keep a process that has nothing to do."""
        assert process.spec is not None, "it was given a model"
        process.since = time.monotonic()
        with self._lock:
            before = self._waiting.get(process.spec.device)
            self._waiting[process.spec.device] = process
        if before is not None:
            before.close()

    def end_waiting(self, seconds: float) -> None:
        """End those that have waited for so long."""
        until = time.monotonic() - seconds
        with self._lock:
            late = [device for device, process in self._waiting.items() if process.since <= until]
            processes = [self._waiting.pop(device) for device in late]
        for process in processes:
            process.close()

    def close(self) -> None:
        """End all of them."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for process in waiting.values():
            process.close()


@dataclass(slots=True)
class _Sent:
    """A task that a process has, and the rows and tokens of it that it has told of."""

    task: Task
    rows: int = 0
    tokens: int = 0


class _DiedError(Exception):
    """The worker process ended before its tasks did."""


class _Process:
    """One worker process, just started. Raises WorkerError when it cannot be.

    Nothing that is sent is waited for: whether it arrived is known from what comes back.
    """

    def __init__(self, worker: Sequence[str]) -> None:
        self.worker = tuple(worker)
        self.spec: WorkerSpec | None = None
        self.loading = False
        """Whether it was given a model and has not said yet what came of it."""
        self.waited = False
        """Whether it is not of this measuring."""
        self.since = 0.0
        """When it began to wait, by the monotonic clock."""
        self._sent: dict[int, _Sent] = {}
        self._number = 0
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
        environment = _PATIENT | os.environ | {"TOKENIZERS_PARALLELISM": "false"}
        try:
            self._process = subprocess.Popen(
                [*PYTHON, *worker],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            self._log.close()
            raise WorkerError(f"cannot start a measuring process: {error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in: IO[str] = self._process.stdin
        self._out: IO[str] = self._process.stdout

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def tasks(self) -> list[Task]:
        """Those it has, in their order."""
        return [each.task for each in self._sent.values()]

    def load(self, spec: WorkerSpec) -> None:
        """Have the model loaded, instead of the one before."""
        self.spec = spec
        self.loading = True
        self._send(spec_line(spec))

    def give(self, task: Task) -> None:
        """One more task, to be done after those it has."""
        self._number += 1
        self._sent[self._number] = _Sent(task)
        parts = range(0, len(task.samples), _PART_ROWS)
        message = {"task": self._number, "out": str(task.out), "parts": len(parts), **task.about}
        self._send(json.dumps(message) + "\n")
        for start in parts:
            self._send(json.dumps(task.samples[start : start + _PART_ROWS]) + "\n")

    def hear(self, on_progress: OnProgress) -> list[tuple[str, str]] | None:
        """Wait for what it says next; the samples that failed, with reasons, where a task is done.

        Raises ModelError when the model cannot be loaded, UsageError when what a task is about cannot be
        done, WorkerError and _DiedError.
        """
        event = self._receive()
        what = event["event"]
        if what == "ready":
            self.loading = False
        elif what == "refused":
            raise (ModelError if self.loading else UsageError)(event["message"])
        elif what == "broken":
            raise _broken(event)
        elif what == "done":
            del self._sent[event["task"]]
            return [(sample_id, reason) for sample_id, reason in event["failed"]]
        else:
            sent = self._sent[event["task"]]
            sent.rows, sent.tokens = sent.rows + event["rows"], sent.tokens + event["tokens"]
            on_progress(event["rows"], event["tokens"])
        return None

    def take_back(self, on_progress: OnProgress) -> list[Task]:
        """The tasks of a process that died, none of them done."""
        tasks = self.tasks
        for each in self._sent.values():
            on_progress(-each.rows, -each.tokens)
        self._sent.clear()
        return tasks

    def close(self) -> None:
        """Let the process end, or end it."""
        if self.loading:
            self.kill()  # it would see to its model first
        with contextlib.suppress(OSError):
            self._in.close()
        try:
            self._process.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._out.close()
        self._log.close()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def _send(self, line: str) -> None:
        with contextlib.suppress(OSError):
            self._in.write(line)
            self._in.flush()

    def _receive(self) -> dict[str, Any]:
        line = self._out.readline()
        if not line.endswith("\n"):
            raise self._death()
        event: dict[str, Any] = json.loads(line)
        return event

    def _death(self) -> _DiedError:
        code = self._process.wait()
        self._log.seek(0)
        tail = self._log.read().decode(errors="replace").strip().splitlines()[-15:]
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return _DiedError("\n".join([f"the measuring process {how}", *tail]))


def _broken(event: Mapping[str, Any]) -> Exception:
    """What a process could not write, as WorkerError, or NoSpaceError where that is why."""
    number = event.get("errno")
    error = WorkerError(event["message"])
    error.__cause__ = None if number is None else OSError(number, os.strerror(number))
    return space.told(error)


def measure(
    spec: WorkerSpec,
    devices: Sequence[str],
    tasks: Iterable[Task],
    on_progress: OnProgress,
    worker: Sequence[str] = WORKER,
    idle: IdleWorkers | None = None,
    on_wait: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, str]]:
    """Run every task, one worker per device, and yield (sample id, reason) of samples that failed.

    `tasks` is consumed as workers become free; `on_wait` is called every now and then, also while models are
    loaded, and may raise to end it all. Raises ModelError when the model cannot be loaded, UsageError when it
    cannot do what a task is about, WorkerError when workers cannot start, keep dying, or cannot write what
    they measured, and NoSpaceError when that is for want of space. However it ends, no worker outlives it,
    but those left to `idle` when all went well.
    """
    run = _Run(spec, len(devices), iter(tasks), on_progress, worker, idle)
    threads = [threading.Thread(target=run.drive, args=(device,), daemon=True) for device in devices]
    living = len(threads)
    try:
        for thread in threads:
            thread.start()
        while living:
            try:
                item = run.results.get(timeout=_WAKE_SECONDS)
            except queue.Empty:
                on_wait()
                continue
            if item is None:
                living -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        run.stop()
        for thread in threads:
            if thread.ident is not None:  # Ctrl-C may come before all of them have started
                thread.join()


class _Run:
    """State that the driving threads share."""

    def __init__(
        self,
        spec: WorkerSpec,
        devices: int,
        tasks: Iterator[Task],
        on_progress: OnProgress,
        worker: Sequence[str],
        idle: IdleWorkers | None,
    ) -> None:
        self.results: queue.Queue[tuple[str, str] | BaseException | None] = queue.Queue()
        self._spec = spec
        self._worker = worker
        self._idle = idle
        self._tasks = tasks
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._again: list[Task] = []
        self._deaths = 0
        self._any_done = False
        self._devices = devices
        self._begun: set[int] = set()
        """Threads that have asked for a task."""
        self._stopped = False
        self._living: set[_Process] = set()

    def stop(self) -> None:
        """Make every driving thread end soon."""
        with self._lock:
            self._stopped = True
            for process in self._living:
                process.kill()

    def drive(self, device: str) -> None:
        """Keep one device busy until no task is left."""
        process: _Process | None = None
        try:
            while True:
                while (task := self._next(process)) is not None:
                    if process is None:
                        process = self._start(device)
                    process.give(task)
                if process is None or not process.tasks:
                    break
                try:
                    failed = process.hear(self._count)
                except _DiedError as death:
                    self._mourn(process, death)
                    process = None
                    continue
                if failed is not None:
                    self._any_done = True
                    for failure in failed:
                        self.results.put(failure)
            if process is not None and self._leave(process):
                process = None
        except BaseException as error:  # handed to the thread that waits
            if process is not None:
                process.kill()  # nobody waits for its tasks any more
            self.results.put(error)
        finally:
            if process is not None:
                self._forget(process)
            self.results.put(None)

    def _leave(self, process: _Process) -> bool:
        """Let an unharmed process wait for other work, if there is somewhere to wait."""
        with self._lock:
            if self._idle is None or self._stopped:
                return False
            self._living.discard(process)
        self._idle.give(process)
        return True

    def _start(self, device: str) -> _Process:
        spec = replace(self._spec, device=device)
        process = None if self._idle is None else self._idle.take(self._worker, spec)
        process = process or _Process(self._worker)
        with self._lock:
            self._living.add(process)
            if self._stopped:
                process.kill()
        if process.spec != spec:
            process.load(spec)
        return process

    def _forget(self, process: _Process) -> None:
        with self._lock:
            self._living.discard(process)
        process.close()

    def _next(self, process: _Process | None) -> Task | None:
        """What this process is to be given besides what it has. Tasks that one may have died of go alone, and
        none is sent ahead before every device had the choice of one."""
        has = [] if process is None else process.tasks
        with self._lock:
            self._begun.add(threading.get_ident())
            if has and len(self._begun) < self._devices:
                return None
            if self._stopped or len(has) == _AHEAD or any(task.alone for task in has):
                return None
            if self._again:
                return None if has else self._again.pop()
            return next(self._tasks, None)

    def _count(self, rows: int, tokens: int) -> None:
        with self._lock:
            self._on_progress(rows, tokens)

    def _mourn(self, process: _Process, death: _DiedError) -> None:
        """See to the tasks of a process that died."""
        with self._lock:
            tasks = process.take_back(self._on_progress)
        self._forget(process)
        if not process.loading:
            self._retry(tasks, str(death))
        elif process.waited:  # it died meanwhile, or of this model beside the other's rest
            with self._lock:
                self._again += reversed(tasks)
        else:
            assert process.spec is not None, "it was given a model"
            raise WorkerError(f"cannot start measuring on {process.spec.device}: {death}") from death

    def _retry(self, tasks: Sequence[Task], death: str) -> None:
        with self._lock:
            if self._stopped:
                return
            self._deaths += 1
            if self._deaths == _HOPELESS and not self._any_done:
                raise WorkerError(f"{_HOPELESS} measuring processes died before one task was done: {death}")
            task, samples = tasks[0], tasks[0].samples
            if not task.suspect:
                self._again += [replace(each, alone=True) for each in reversed(tasks)]
                self._again[-1] = replace(task, alone=True, suspect=True)
            elif task.whole:
                raise WorkerError(f"more than once, {death}")
            elif len(samples) > 1:
                middle = len(samples) // 2
                self._again += [replace(task, samples=half) for half in (samples[middle:], samples[:middle])]
            else:
                how, *log = death.splitlines()
                said = f": {without_paths(log[-1])}" if log else ""
                self.results.put((samples[0]["id"], f"{how} on this sample, more than once{said}"))
                self._on_progress(1, 0)
