"""Measure on this machine: one worker process per device, fed task by task.

Notable choices:
- a finished task is a file of the signal cache, so a crash at any moment costs the task in flight at most;
- when a worker dies, the task is tried again in a new process; if it dies again, the task is cut in two and
  each half tried, until the one sample that kills it stands alone and is reported as failed;
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from datapruner.errors import ModelError, UsageError, WorkerError, without_paths
from datapruner.measuring.signal_cache import shard_name
from datapruner.measuring.workers.spec import WorkerSpec, spec_line
from datapruner.system import space
from scorers.interpreter import PYTHON

OnProgress = Callable[[int, int], None]
"""Called with (rows, tokens) measured since the last call; negative when a worker's death undid some."""

WORKER = ("-m", "datapruner.measuring.workers.worker")
TOKENISER = ("-m", "datapruner.measuring.workers.tokenising")
"""Arguments of the Python interpreter that start a worker: with a model, or a tokenizer alone."""

_PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that wait must not spin: beside any other busy process, spinning halves a worker's speed."""

_HOPELESS = 16
"""Deaths before the first finished task that end the run: more than isolating one sample of 256 takes."""

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
    suspect: bool = False
    """Whether a worker already died of it."""

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
        assert held.spec is not None, "it has loaded a model"
        same_threads = held.spec.threads == spec.threads  # which cannot be taken back
        if held.worker == tuple(worker) and same_threads and held.alive:
            return held
        held.close()
        return None

    def give(self, process: _Process) -> None:
        """Keep a process that has nothing to do."""
        assert process.spec is not None, "it has loaded a model"
        with self._lock:
            before = self._waiting.get(process.spec.device)
            self._waiting[process.spec.device] = process
        if before is not None:
            before.close()

    def close(self) -> None:
        """End all of them."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for process in waiting.values():
            process.close()


class _DiedError(Exception):
    """The worker process ended before its task did."""


class _Process:
    """One worker process, just started. Raises WorkerError when it cannot be."""

    def __init__(self, worker: Sequence[str]) -> None:
        self.worker = tuple(worker)
        self.spec: WorkerSpec | None = None
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

    def load(self, spec: WorkerSpec) -> None:
        """Have the model loaded, instead of the one before. Raises ModelError when it cannot be, and
        _DiedError."""
        self.spec = None
        self._send(spec_line(spec))
        event = self._receive()
        if event["event"] == "refused":
            raise ModelError(event["message"])
        self.spec = spec

    def run(self, number: int, task: Task, on_progress: OnProgress) -> list[tuple[str, str]]:
        """Measure a task; return the samples that failed, with reasons.

        Raises UsageError when what `about` says cannot be done, WorkerError and _DiedError.
        """
        message = {"task": number, "out": str(task.out), "samples": task.samples, **task.about}
        rows = tokens = 0
        try:
            self._send(json.dumps(message) + "\n")
            while True:
                event = self._receive()
                if event["event"] == "done":
                    return [(sample_id, reason) for sample_id, reason in event["failed"]]
                if event["event"] == "broken":
                    raise _broken(event)
                if event["event"] == "refused":
                    raise UsageError(event["message"])
                rows, tokens = rows + event["rows"], tokens + event["tokens"]
                on_progress(event["rows"], event["tokens"])
        except _DiedError:
            on_progress(-rows, -tokens)
            raise

    def close(self) -> None:
        """Let the process end, or end it."""
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
        try:
            self._in.write(line)
            self._in.flush()
        except OSError as error:
            raise self._death() from error

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
    run = _Run(spec, iter(tasks), on_progress, worker, idle)
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
        self._number = 0
        self._deaths = 0
        self._any_done = False
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
            while (numbered := self._next()) is not None:
                number, task = numbered
                if process is None:
                    process = self._start(device)
                try:
                    for failure in process.run(number, task, self._count):
                        self.results.put(failure)
                    self._any_done = True
                except _DiedError as death:
                    self._forget(process)
                    process = None
                    self._retry(task, str(death))
            if process is not None and self._leave(process):
                process = None
        except BaseException as error:  # handed to the thread that waits
            if process is not None:
                process.kill()  # nobody waits for its task any more
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
        waiting = None if self._idle is None else self._idle.take(self._worker, spec)
        if waiting is not None:
            with contextlib.suppress(_DiedError):  # while it waited, or of this model beside the other's rest
                return self._loaded(waiting, spec)
        try:
            return self._loaded(_Process(self._worker), spec)
        except _DiedError as error:
            raise WorkerError(f"cannot start measuring on {device}: {error}") from error

    def _loaded(self, process: _Process, spec: WorkerSpec) -> _Process:
        with self._lock:
            self._living.add(process)
            if self._stopped:
                process.kill()
        if process.spec != spec:
            try:
                process.load(spec)
            except BaseException:
                self._forget(process)
                raise
        return process

    def _forget(self, process: _Process) -> None:
        with self._lock:
            self._living.discard(process)
        process.close()

    def _next(self) -> tuple[int, Task] | None:
        with self._lock:
            task = None if self._stopped else self._again.pop() if self._again else next(self._tasks, None)
            self._number += 1
            return None if task is None else (self._number, task)

    def _count(self, rows: int, tokens: int) -> None:
        with self._lock:
            self._on_progress(rows, tokens)

    def _retry(self, task: Task, death: str) -> None:
        samples = task.samples
        with self._lock:
            if self._stopped:
                return
            self._deaths += 1
            if self._deaths == _HOPELESS and not self._any_done:
                raise WorkerError(f"{_HOPELESS} measuring processes died before one task was done: {death}")
            if task.whole and task.suspect:
                raise WorkerError(f"more than once, {death}")
            if not task.suspect:
                self._again.append(replace(task, suspect=True))
            elif len(samples) > 1:
                middle = len(samples) // 2
                self._again += [replace(task, samples=half) for half in (samples[middle:], samples[:middle])]
            else:
                how, *log = death.splitlines()
                said = f": {without_paths(log[-1])}" if log else ""
                self.results.put((samples[0]["id"], f"{how} on this sample, more than once{said}"))
                self._on_progress(1, 0)
