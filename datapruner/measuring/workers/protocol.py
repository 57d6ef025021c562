"""How a measuring process speaks with the one that started it: JSON lines over its standard streams.

In: a specification (`WorkerSpec`) and tasks for its model, then perhaps another with its tasks. A task is
`{"task": 3, "out": "<path>", "parts": 2}`, with whatever else it is about, and so many lines behind it with a
list of samples each: `{"id": ..., "turns": [[role, content, calls], ...], "tools": ...}` where they are
conversations. Nothing has to be waited for: tasks may be sent while the model is loaded, and while others are
measured.
Out: `{"event": "ready"}`, `{"event": "progress", "task": 3, "rows": 1, "tokens": 20}` every now and then,
`{"event": "done", "task": 3, "failed": [[id, reason], ...]}` once the result is on disk, `{"event":
"refused", "message": ...}` when the model, or what a task asks for, cannot be used, `{"event": "broken",
"message": ..., "errno": 28}` when a result cannot be written, with the system's number if it has one. Tasks
are done one after the other. Ends when standard input does.

Notable choices:
- anything that libraries print goes to standard error: the protocol has standard output for itself;
- a thread reads whatever comes, so that whoever writes never waits for a model, and has parts of tasks
  prepared (`Ahead`) before their turn;
- what a runner leaves to be written is written by another thread while the next task is done.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TextIO

from datapruner.measuring.workers.spec import WorkerSpec
from datapruner.measuring.workers.start import settled
from scorers.models.sources import ModelSourceError

Event = dict[str, Any]

Write = Callable[[], Event]
"""Writes what a task came to, and returns the event that says so."""

Part = Callable[[], list[Any]]
"""Some samples of a task, when they are needed."""

Ahead = Callable[[WorkerSpec], Callable[[str], Part]]
"""For a specification, what is done with each line of samples when it comes in."""

_PROGRESS_SECONDS = 0.1


class Runner(Protocol):
    """A loaded model and what it does with tasks."""

    def run(self, task: dict[str, Any]) -> Iterator[Event | Write]:
        """Do a task, whose `samples` are all there, yielding events; what is to be written comes last."""
        ...


def unwritten(what: str, error: OSError) -> Event:
    """That a result cannot be written, and why; without its path, as people read it who have no business
    there."""
    return {
        "event": "broken",
        "message": f"cannot write {what}: {error.strerror or error}",
        "errno": error.errno,
    }


def plainly(_: WorkerSpec) -> Callable[[str], Part]:
    """Samples as they were sent."""
    return lambda line: lambda: json.loads(line)


class _Speaker:
    """Writes events, from any thread; progress not row by row, but every now and then."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._rows = self._tokens = 0
        self._told = time.monotonic()

    def progress(self, task: int, event: Event) -> None:
        self._rows, self._tokens = self._rows + event["rows"], self._tokens + event["tokens"]
        if time.monotonic() - self._told > _PROGRESS_SECONDS:
            self.catch_up(task)

    def catch_up(self, task: int) -> None:
        """Tell of the progress that was not told yet."""
        if self._rows or self._tokens:
            self.send({"event": "progress", "task": task, "rows": self._rows, "tokens": self._tokens})
        self._rows = self._tokens = 0
        self._told = time.monotonic()

    def send(self, event: Event) -> None:
        with self._lock:
            self._out.write(json.dumps(event) + "\n")
            self._out.flush()


class _Behind:
    """Writes results one after the other, at most one of them later than its task."""

    def __init__(self, speaker: _Speaker) -> None:
        self._speaker = speaker
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def put(self, write: Write) -> None:
        self.settle()
        self._pending = self._thread.submit(lambda: self._speaker.send(write()))

    def settle(self) -> None:
        """Wait until all is written. Raises what writing raised."""
        if self._pending is not None:
            self._pending.result()
        self._pending = None


_Message = tuple[dict[str, Any], list[Part]]


def _read(lines: Iterable[str], ahead: Ahead, messages: queue.SimpleQueue[_Message | BaseException]) -> None:
    """Put every message of `lines` and its parts into the queue, {} at their end."""
    prepare: Callable[[str], Part] | None = None
    coming = iter(lines)
    try:
        for line in coming:
            message = json.loads(line)
            if "task" not in message:
                prepare = ahead(WorkerSpec(**message))
                messages.put((message, []))
                continue
            assert prepare is not None, "a specification comes first"
            messages.put((message, [prepare(next(coming)) for _ in range(message.pop("parts"))]))
        messages.put(({}, []))
    except BaseException as error:  # which is the main thread's to die of
        messages.put(error)


def serve(
    start: Callable[[WorkerSpec], Runner], lines: Iterable[str], out: TextIO, ahead: Ahead = plainly
) -> None:
    """Run the protocol over `lines`, writing events to `out`."""
    speaker = _Speaker(out)
    behind = _Behind(speaker)
    messages: queue.SimpleQueue[_Message | BaseException] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines, ahead, messages), daemon=True).start()
    runner: Runner | None = None
    while True:
        if messages.empty():
            behind.settle()  # whoever sent all of it waits for this
        got = messages.get()
        if isinstance(got, BaseException):
            raise got
        message, parts = got
        if not message:
            behind.settle()
            return
        if "task" in message:
            if runner is not None:  # else it was refused
                _run(runner, message, parts, speaker, behind)
            continue
        behind.settle()
        if gc.isenabled():  # else nothing was loaded yet
            runner = None  # the model before makes room for the next
            gc.unfreeze()
            gc.collect()
        try:
            runner = start(WorkerSpec(**message))
        except ModelSourceError as error:
            speaker.send({"event": "refused", "message": str(error)})
        else:
            speaker.send({"event": "ready"})
        settled()


def _run(runner: Runner, task: dict[str, Any], parts: list[Part], speaker: _Speaker, behind: _Behind) -> None:
    samples = [sample for part in parts for sample in part()]
    for event in runner.run({**task, "samples": samples}):
        if callable(event):
            speaker.catch_up(task["task"])
            behind.put(event)
        elif event["event"] == "progress":
            speaker.progress(task["task"], event)
        else:
            speaker.catch_up(task["task"])
            behind.settle()  # events come in the order of their tasks
            speaker.send(event)


def main(start: Callable[[WorkerSpec], Runner], ahead: Ahead = plainly) -> None:
    """Run the protocol over the standard streams of this process."""
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    lines = os.fdopen(os.dup(0), encoding="utf-8")  # not `sys.stdin`, which is closed while a thread reads it
    os.dup2(2, 1)
    with protocol:
        serve(start, lines, protocol, ahead)
