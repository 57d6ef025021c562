"""Measure on a Ray cluster: tasks are written where every node sees them, then done by actors on the nodes.

The counterpart of `workers.local`, with the same shards, byte for byte where the processors are alike.
Notable choices:
- the folder of the tasks lies beside the shards, which every node has to see; it goes when they are done, and
  a day later where we were killed;
- tasks are written while the process that drives the cluster connects, all of them before the first is done;
- a load that was reported is done whatever happens next. When a node is lost, the rest begins anew without
  it;
- ending the driving process is what ends everything, on the nodes too: within a second, in the middle of
  whatever is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from datapruner.errors import ModelError, UsageError, WorkerError
from datapruner.measuring.cluster import loads
from datapruner.measuring.cluster.pool import Node
from datapruner.measuring.workers import local
from datapruner.measuring.workers.spec import WorkerSpec
from datapruner.system import space
from datapruner.system.files import unfinished
from scorers.interpreter import PYTHON

_DRIVE = ("-m", "datapruner.measuring.cluster.driving")
_ADDRESS = re.compile(r"auto|[\w.-]+:\d{1,5}|\[[0-9A-Fa-f:]+\]:\d{1,5}")
_WAKE_SECONDS = 0.2
_CONNECT_SECONDS, _START_SECONDS = 60.0, 180.0
_END_SECONDS = 5.0
_HOPELESS = 4
"""Nodes lost without a load being done in between that end the measuring."""

_LOG_LINES = 15
_MOST_TEMPORARY = 24
"""Characters of the folder for temporary files below which Ray's sockets can be: their paths end at 103."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster: "auto" for the one that this machine is a node of, HOST:PORT, or None for one that is
    started on this machine for as long as it takes."""

    address: str | None = None


def check(cluster: Cluster) -> None:
    """Raise UsageError when Ray is not there or the address is no address."""
    if find_spec("ray") is None:
        raise UsageError(
            "the engine ray needs the package ray", remedy="pip install 'datapruner[ray]'", field="engine"
        )
    address = cluster.address
    if address is not None and not _ADDRESS.fullmatch(address):
        remedy = "auto, or HOST:PORT as in 10.0.0.5:6379"
        if address.startswith("ray://"):
            remedy += ": datapruner has to run on a node of the cluster, not behind Ray's client"
        raise UsageError(f"{address!r} is no address of a Ray cluster", remedy=remedy, field="ray_address")


def nodes(cluster: Cluster) -> list[Node]:
    """What the nodes of a running cluster have. Raises as `check` does, and WorkerError when none answers."""
    check(cluster)
    with _Driving(cluster, Path(), cpus=1, gpus=0) as driving:
        return driving.connected(lambda: None)


def measure(
    spec: WorkerSpec,
    places: Sequence[str],
    tasks: Iterable[local.Task],
    on_progress: local.OnProgress,
    worker: Sequence[str],
    *,
    cluster: Cluster,
    threads: int | None,
    on_wait: Callable[[], None],
) -> Iterator[tuple[str, str]]:
    """As `local.measure`, by an actor for each of the places: a GPU, or processors of one node.

    `threads`: of a measuring process, by default its share of the cluster. All tasks are drawn at once.
    Raises UsageError besides, when the cluster has no room or does not see the tasks, WorkerError when it
    cannot be reached.
    """
    check(cluster)
    coming = iter(tasks)
    first = next(coming, None)
    if first is None:
        return
    if cluster.address is None:
        threads = threads or spec.threads
    folder = unfinished(first.folder / "tasks")
    with _writing():
        folder.mkdir()
    try:
        job = _Job(spec, tuple(places), tuple(worker), folder, threads, cluster)
        yield from job.run(chain([first], coming), on_progress, on_wait)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(slots=True)
class _Job:
    """A measuring and what of it is done."""

    spec: WorkerSpec
    places: tuple[str, ...]
    worker: tuple[str, ...]
    folder: Path
    threads: int | None
    cluster: Cluster
    rows: int = 0
    tokens: int = 0
    """Of the loads that are done."""
    told: tuple[int, int] = (0, 0)

    def run(
        self, tasks: Iterable[local.Task], on_progress: local.OnProgress, on_wait: Callable[[], None]
    ) -> Iterator[tuple[str, str]]:
        left: dict[int, loads.Load] | None = None
        lost = 0
        while left is None or left:
            with self._driving() as driving:
                if left is None:
                    with _writing():
                        count, whole = loads.write(self.folder, tasks, on_wait)
                    # What follows from one another stays together, in its order.
                    chained = whole and len(self.places) == 1
                    left = dict(enumerate([(0, count)] if chained else loads.cut(count, len(self.places))))
                driving.connected(on_wait)
                driving.tell(**self._document(left, first=lost == 0))
                before = len(left)
                for event in driving.events(on_wait):
                    if event["event"] == "began":
                        self.threads = event["threads"]
                    elif event["event"] == "done":
                        os.utime(self.folder)  # it is in use, and no day old
                        yield from self._done(left, event)
                    self._tell(event, on_progress)
            if left:
                lost = lost + 1 if len(left) == before else 1
                if lost > _HOPELESS:
                    said = event["reason"]
                    raise WorkerError(f"nodes of the Ray cluster were lost again and again: {said}")

    def _driving(self) -> _Driving:
        on_gpu = self.places[0].startswith("cuda")
        size = len(self.places)
        cpus = 1 if on_gpu else size * (self.threads or 1)
        visible = _visible(self.places) if on_gpu and self.cluster.address is None else None
        return _Driving(self.cluster, self.folder, cpus=cpus + 1, gpus=size if on_gpu else 0, visible=visible)

    def _document(self, left: dict[int, loads.Load], *, first: bool) -> dict[str, Any]:
        renderers = None if self.cluster.address is not None else self.spec.renderers
        return {
            "folder": str(self.folder),
            "loads": [[number, *load] for number, load in left.items()],
            "spec": asdict(self.spec) | {"threads": self.threads, "renderers": renderers},
            "worker": self.worker,
            "places": self.places,
            "threads": self.threads,
            "first": first,
            "version": version("datapruner"),
        }

    def _done(self, left: dict[int, loads.Load], event: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """What came of a load. Raises what went wrong with it."""
        if "error" in event:
            raise _raised(event)
        if left.pop(event["load"], None) is not None:
            self.rows, self.tokens = self.rows + event["rows"], self.tokens + event["tokens"]
            yield from ((sample_id, reason) for sample_id, reason in event["failed"])

    def _tell(self, event: dict[str, Any], on_progress: local.OnProgress) -> None:
        """Pass on how much more is done than was told, or less when an actor died."""
        if event["event"] == "open":
            now = (self.rows + event["rows"], self.tokens + event["tokens"])
        elif event["event"] == "done":
            now = (max(self.rows, self.told[0]), max(self.tokens, self.told[1]))
        elif event["event"] in ("lost", "ended"):
            now = (self.rows, self.tokens)
        else:
            return
        if now != self.told:
            on_progress(now[0] - self.told[0], now[1] - self.told[1])
            self.told = now


class _Driving:
    """The process that drives the cluster, with `folder` as its working directory. Ends with the block, and
    all on the cluster with it."""

    def __init__(
        self, cluster: Cluster, folder: Path, *, cpus: int, gpus: int, visible: str | None = None
    ) -> None:
        self._cluster = cluster
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
        # In a place of its own, and not in that of a cluster that runs here besides.
        self._temporary = _temporary() if cluster.address is None else None
        environment = os.environ | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
        environment |= _only_ours() if cluster.address is None else {}
        try:
            self._process = subprocess.Popen(
                [*PYTHON, *_DRIVE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
                cwd=folder,
                start_new_session=True,  # a Ctrl-C is ours to answer: its input ends
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            self._log.close()
            raise WorkerError(f"cannot start the process that drives Ray: {error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in: IO[str] = self._process.stdin
        self._heard: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._hearing = threading.Thread(target=self._hear, args=(self._process.stdout,), daemon=True)
        self._hearing.start()
        self.tell(address=cluster.address, temporary=self._temporary, cpus=cpus, gpus=gpus)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._in.close()
        try:
            self._process.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._hearing.join()
        self._log.close()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def tell(self, **message: Any) -> None:
        """Send a message. Whether it arrived is known from what comes back."""
        with contextlib.suppress(OSError):
            self._in.write(json.dumps(message) + "\n")
            self._in.flush()

    def connected(self, on_wait: Callable[[], None]) -> list[Node]:
        """Wait until it is, and no longer than a cluster that is there can take. Raises WorkerError."""
        address = self._cluster.address
        until = time.monotonic() + (_START_SECONDS if address is None else _CONNECT_SECONDS)
        while True:
            event = self._next(on_wait)
            if event is not None:
                return [Node(*each) for each in event["nodes"]]
            if time.monotonic() < until:
                continue
            if address is None:
                raise WorkerError(f"Ray did not start on this machine within {_START_SECONDS:.0f} seconds")
            raise WorkerError(
                f"the Ray cluster at {address} does not answer",
                remedy="see `ray status` there",
                field="ray_address",
            )

    def events(self, on_wait: Callable[[], None]) -> Iterator[dict[str, Any]]:
        """All that it says, to the end of its work or to where a node was lost."""
        while True:
            event = self._next(on_wait)
            if event is not None:
                yield event
                if event["event"] in ("ended", "lost"):
                    return

    def _next(self, on_wait: Callable[[], None]) -> dict[str, Any] | None:
        try:
            event = self._heard.get(timeout=_WAKE_SECONDS)
        except queue.Empty:
            on_wait()
            return None
        if event is None:
            raise self._death()
        if event["event"] == "refused":
            raise _raised(event)
        return event

    def _hear(self, out: IO[str]) -> None:
        with out:
            for line in out:
                self._heard.put(json.loads(line))
        self._heard.put(None)

    def _death(self) -> WorkerError:
        code = self._process.wait()
        self._log.seek(0)
        log = self._log.read().decode(errors="replace").strip().splitlines()[-_LOG_LINES:]
        text = "\n".join([f"the process that drives Ray ended with exit code {code}", *log])
        return WorkerError(text)


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Tell what keeps the tasks from being written. Raises NoSpaceError and WorkerError."""
    try:
        with space.needed("the tasks"):
            yield
    except OSError as error:
        raise WorkerError(f"cannot write the tasks: {error.strerror or error}") from error


def _raised(event: dict[str, Any]) -> Exception:
    kind = {"ModelError": ModelError, "UsageError": UsageError}.get(event["error"], WorkerError)
    error = kind(event["message"], remedy=event["remedy"], field=event["field"])
    number = event["errno"]
    error.__cause__ = None if number is None else OSError(number, os.strerror(number))
    return space.told(error)


def _only_ours() -> dict[str, str]:
    """What makes a Ray of ours, whose ports are open to the network, do nothing without a token that nobody
    else has. Ray itself would keep one in the user's folder for all, and may not be able to."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _temporary() -> str:
    """A folder for the files of a Ray of ours, whose driving process removes it."""
    usual = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="ray-", dir=usual if len(usual) <= _MOST_TEMPORARY else "/tmp")  # noqa: S108


def _visible(places: Sequence[str]) -> str:
    """`CUDA_VISIBLE_DEVICES` that leaves the GPUs of these names."""
    there = os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = [int(name.partition(":")[2] or at) for at, name in enumerate(places)]
    if there is None:
        return ",".join(map(str, numbers))
    names = there.split(",")
    return ",".join(names[number] for number in numbers if number < len(names))
