"""Where query processes come from: one process that has imported everything, of which each is a fork.

The other side of `child.Nursery`. Notable choices:
- a fork costs a tenth of a new process, so that many small queries in a row stay quick;
- a child gets the three pipes that are made for it here; it inherits no descriptor of this process and a
  fixed environment, since what it is forked from has none other either;
- the first child is forked before what only more of them make up for: a single query need not wait for it;
- the nursery waits for its children and tells how they ended; they are killed by their number, not by a
  process id that might be another's by then.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from datapruner.errors import WorkerError

_CHILD = Path(__file__).with_name("child.py")
_ENVIRONMENT = {
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
    # Both keep the reserved address space, which is limited, close to what is used.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
}
_REMEDY = "look for a limit on processes, files or memory"


@dataclass
class Child:
    """A process that will answer one query. `close` ends it if it has not ended."""

    nursery: Nursery
    number: int
    input: BinaryIO
    output: BinaryIO
    errors: BinaryIO
    status: int
    """Read end of the pipe that tells how it ended."""
    killed: threading.Event = field(default_factory=threading.Event)

    def is_alive(self) -> bool:
        waiting = select.poll()
        waiting.register(self.status, select.POLLIN)
        waiting.register(self.output, 0)  # hung up when it ends, which the nursery learns a little later
        return not waiting.poll(0)

    def kill(self) -> None:
        self.killed.set()
        self.nursery.kill(self.number)

    def exit_code(self, seconds: float) -> int | None:
        """How it ended, as `subprocess` says it, once it has; None when nobody knows, or it runs on."""
        said = os.read(self.status, 16) if self._ended(seconds) else b""
        return int(said) if said else None

    def close(self) -> None:
        self.kill()
        for stream in (self.input, self.output, self.errors):
            with suppress(BrokenPipeError):  # of a request that it did not read
                stream.close()
        os.close(self.status)

    def _ended(self, seconds: float) -> bool:
        waiting = select.poll()
        waiting.register(self.status, select.POLLIN)
        return bool(waiting.poll(seconds * 1000))


class Nursery:
    """Starts children. Safe to share between threads; also a context manager."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> Child:
        """A child that prepares itself and then waits for its query. Raises WorkerError."""
        theirs: list[int] = []
        ours: list[int] = []
        try:
            for is_input in (True, False, False, False):
                ends = os.pipe()
                theirs.append(ends[0] if is_input else ends[1])
                ours.append(ends[1] if is_input else ends[0])
            number = next(self._numbers)
            with self._lock:
                if not self._tell(number, theirs):  # none runs: this is the first child, or it has died
                    self._end()
                    self._begin()
                    self._tell(number, theirs)
        except OSError as error:
            for descriptor in ours:
                os.close(descriptor)
            raise WorkerError(f"no query process can be started: {error}", remedy=_REMEDY) from error
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        source, output, errors, status = ours
        return Child(
            self, number, os.fdopen(source, "wb"), os.fdopen(output, "rb"), os.fdopen(errors, "rb"), status
        )

    def kill(self, number: int) -> None:
        """End the child, if it has not ended."""
        with self._lock:
            self._tell(number)

    def close(self) -> None:
        """End the process. Children that still work are not waited for."""
        with self._lock:
            self._end()

    def _tell(self, number: int, pipes: Sequence[int] = ()) -> bool:
        """Have a child started with these pipes, or killed; False when there is no process to do it."""
        if self._channel is None:
            return False
        try:
            socket.send_fds(self._channel, [str(number).encode()], list(pipes))
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _begin(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(_CHILD)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )

    def _end(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.kill()  # it has nothing to tidy up, and may be busy importing
            self._process.wait()
            self._process = None


@contextmanager
def begun() -> Iterator[Child]:
    """One child, from a nursery of its own: it prepares itself while the block finds out what to ask it."""
    with Nursery() as nursery, closing(nursery.start()) as child:
        yield child
