"""What runs on the nodes: the actor that measures, and the board that it tells of its progress.

Notable choices:
- an actor measures as this machine does (`workers.local`), with one measuring process of its own: a sample
  that kills its process is found and reported in the same way, and the model stays loaded between loads. The
  actor itself loads no model, and is not what dies of a sample;
- what goes wrong is returned, not raised: what Ray wraps around an error would have to be taken off again;
- of a load whose actor died, what has its shard is not done again;
- progress goes by a side door, as Ray gives the results of a load that is done a second time from where the
  first attempt was: only a load's one last result may count.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from datapruner.errors import DataprunerError, ModelError, UsageError, WorkerError
from datapruner.measuring.cluster import loads
from datapruner.measuring.workers import local
from datapruner.measuring.workers.spec import WorkerSpec

_TELL_SECONDS = 0.5


class Board:
    """How far loads are that no result has come of yet: rows and tokens by the load's number; and on which
    nodes actors are."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[int, int]] = {}
        self._done: set[int] = set()
        self._nodes: set[str] = set()

    def tell(self, node: str, load: int, rows: int, tokens: int) -> None:
        """So much of a load is done by the attempt that speaks, on this node."""
        self._nodes.add(node)
        if load not in self._done:  # what an actor says last may come later than its result
            self._open[load] = (rows, tokens)

    def read(self, done: Sequence[int]) -> tuple[int, int, set[str]]:
        """Rows and tokens of all open loads together, those that are `done` being forgotten; the nodes."""
        self._done.update(done)
        for load in done:
            self._open.pop(load, None)
        rows, tokens = (sum(each[at] for each in self._open.values()) for at in (0, 1))
        return rows, tokens, self._nodes


class Scorer:
    """Turns loads into shards. What Ray pickles of it is this, and no data of anybody's."""

    def __init__(self, folder: str, spec: dict[str, Any], worker: list[str], ours: str, board: Any) -> None:
        self._folder, self._spec, self._worker = Path(folder), spec, worker
        self._ours, self._board = ours, board
        self._idle = local.IdleWorkers()
        self._node = _node()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Do the one load of a batch: columns load, first and stop; what came of it as JSON, `said`."""
        [row] = batch.to_pylist()
        telling = _Telling(self._board, self._node, row["load"])
        try:
            self._check()
            tasks = loads.read(self._folder, (row["first"], row["stop"]))
            failed = list(self._measure(_left(tasks, telling), telling))
            said: dict[str, Any] = {"failed": failed, "rows": telling.rows, "tokens": telling.tokens}
        except (DataprunerError, OSError) as error:
            said = told(error)
        return pa.table({"load": [row["load"]], "said": [json.dumps(said)]})

    def _measure(self, tasks: Iterator[local.Task], telling: _Telling) -> Iterator[tuple[str, str]]:
        spec = WorkerSpec(**self._spec)
        return local.measure(
            spec,
            [spec.device],
            tasks,
            telling.count,
            self._worker,
            idle=self._idle,
            on_wait=telling.tell,
        )

    def _check(self) -> None:
        """Raise where this node is not fit to measure."""
        here = socket.gethostname()
        theirs = version("datapruner")
        if theirs != self._ours:
            raise UsageError(
                f"node {here} of the Ray cluster has datapruner {theirs}, not {self._ours}",
                remedy="install the same version on every node",
            )
        for folder in (self._folder, Path(self._spec["folder"])):
            if not folder.is_dir():
                raise UsageError(
                    f"node {here} of the Ray cluster does not see {folder}",
                    remedy="keep DATAPRUNER_HOME in a folder that every node mounts at the same path; models "
                    "and signals cannot be read from an object store by the nodes",
                )


def _node() -> str:
    """The id of this node, "" outside a cluster."""
    import ray

    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else ""


def _left(tasks: Iterator[local.Task], telling: _Telling) -> Iterator[local.Task]:
    """Without those that an attempt before this one has done."""
    for task in tasks:
        if loads.is_done(task):
            telling.count(len(task.samples), 0)
        else:
            yield task


class _Telling:
    """Counts what one attempt at a load has done, and tells the board every now and then."""

    def __init__(self, board: Any, node: str, load: int) -> None:
        self.rows = self.tokens = 0
        self._board, self._node, self._load = board, node, load
        self._told = 0.0
        self.tell()

    def count(self, rows: int, tokens: int) -> None:
        self.rows, self.tokens = self.rows + rows, self.tokens + tokens
        self.tell()

    def tell(self) -> None:
        if time.monotonic() - self._told > _TELL_SECONDS:
            self._told = time.monotonic()
            self._board.tell.remote(self._node, self._load, self.rows, self.tokens)


def told(error: Exception) -> dict[str, Any]:
    """An error as JSON."""
    number = next((each.errno for each in _causes(error) if isinstance(each, OSError)), None)
    kind = next((each for each in (ModelError, UsageError) if isinstance(error, each)), WorkerError)
    found = error if isinstance(error, DataprunerError) else DataprunerError(str(error))
    said = {"message": found.message, "remedy": found.remedy, "field": found.field}
    return {"error": kind.__name__, **said, "errno": number}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
