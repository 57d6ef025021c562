"""How a measuring process speaks with the one that started it: JSON lines over its standard streams.

In: a specification (`WorkerSpec`) and tasks for its model, then perhaps another with its tasks; each is a
line. A task is `{"task": 3, "out": "<path>", "samples": [...]}`, with a sample as `{"id": ..., "turns":
[[role, content, calls], ...], "tools": ...}` where it is a conversation, and whatever else it is about.
Out: `{"event": "ready"}`, `{"event": "progress", "rows": 1, "tokens": 20}` after every batch,
`{"event": "done", "task": 3, "failed": [[id, reason], ...]}` once the result is on disk, `{"event":
"refused", "message": ...}` when the model, or what a task asks for, cannot be used, `{"event": "broken",
"message": ..., "errno": 28}` when a result cannot be written, with the system's number if it has one. Ends
when standard input does.

Notable choice: anything that libraries print goes to standard error: the protocol has standard output for
itself.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TextIO

from datapruner.measuring.workers.spec import WorkerSpec
from scorers.models.sources import ModelSourceError

Event = dict[str, Any]


class Runner(Protocol):
    """A loaded model and what it does with tasks."""

    def run(self, task: dict[str, Any]) -> Iterator[Event]:
        """Do a task, yielding events."""
        ...


def unwritten(what: str, error: OSError) -> Event:
    """That a result cannot be written, and why; without its path, as people read it who have no business
    there."""
    return {
        "event": "broken",
        "message": f"cannot write {what}: {error.strerror or error}",
        "errno": error.errno,
    }


def serve(start: Callable[[WorkerSpec], Runner], lines: Iterable[str], out: TextIO) -> None:
    """Run the protocol over `lines`, writing events to `out`."""

    def send(event: Event) -> None:
        out.write(json.dumps(event) + "\n")
        out.flush()

    runner: Runner | None = None
    for message in map(json.loads, lines):
        if "task" in message:
            assert runner is not None, "a specification comes first"
            for event in runner.run(message):
                send(event)
            continue
        runner = None  # the model before makes room for the next
        gc.collect()
        try:
            runner = start(WorkerSpec(**message))
        except ModelSourceError as error:
            send({"event": "refused", "message": str(error)})
            return
        send({"event": "ready"})


def main(start: Callable[[WorkerSpec], Runner]) -> None:
    """Run the protocol over the standard streams of this process."""
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with protocol:
        serve(start, sys.stdin, protocol)
