"""The process that drives a Ray cluster: `python -m datapruner.measuring.cluster.driving`.

JSON lines over its standard streams. In: `{"address": ..., "temporary": ..., "cpus": 3, "gpus": 0}` and, when
the tasks are written, `{"folder": ..., "loads": [[number, first, stop], ...], "spec": ..., "worker": [...],
"places": [...], "threads": null, "first": true, "version": ...}`. Out: `{"event": "connected", "nodes":
[[cpus, gpus], ...]}`, `{"event": "began", "threads": 2}`, `{"event": "open", "rows": 3, "tokens": 99}` every
now and then for the loads that are not done, `{"event": "done", "load": 4, ...}` with what `Scorer` said,
`{"event": "lost", "reason": ...}` when a node is gone, and `{"event": "ended"}`. When its input ends, so does
the process, and with it all that it has on the cluster.

The cluster is driven by `ray.data`: a table of loads -> `map_batches(Scorer)` by a fixed pool of actors ->
what came of each. Notable choices:
- it is a process, so that Ray's signal handlers, threads and log lines are in nobody's way, and that ending
  it ends everything, however far it is. It imports no torch;
- the actors read their tasks themselves, from `loads`, and write their shards. `read_parquet` would deal out
  as many rows at once as it likes, in whatever order, and wait for a processor that the actors hold;
  `write_parquet` would cut the rows into other files under names of chance, and neither the bytes would be
  those of one machine nor could a broken run be resumed from them;
- an actor that dies is started again and its load with it, a few times. When a node is lost, its actors may
  never find another, and Ray would wait for them: the loads that are not done begin anew on what is left;
- its working directory is the folder of the tasks, where there are no modules: Ray has every actor look for
  modules in it before anywhere else.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from datapruner.errors import DataprunerError, UsageError, WorkerError
from datapruner.measuring.cluster.pool import TOKENISER, Node, pool
from datapruner.measuring.cluster.scorer import Board, Scorer, told

_RETRIES = 4
"""Times that a load is tried again after its actor died, which a sample cannot make it do."""

_RESTARTS = 4
"""Times that an actor is started again, before all of them begin anew: some never start at all."""

_STORE_BYTES = 100 << 20
_IN_FLIGHT = 2
"""Loads that an actor has, so that it never waits for the next."""

_INSTALL = "install the same version on every node"
_LOOK_SECONDS = 0.5
_REACH_SECONDS = 5.0
_LEAVE_SECONDS = 4.0
"""For Ray to take leave, which it does not where it could not begin. It ends with this process anyway."""


class _Speaker:
    def __init__(self, out: TextIO) -> None:
        self._out, self._lock = out, threading.Lock()

    def say(self, event: str, **more: Any) -> None:
        with self._lock:
            self._out.write(json.dumps({"event": event, **more}) + "\n")
            self._out.flush()


def connect(address: str | None, temporary: str | None, cpus: int, gpus: int) -> None:
    """Join the cluster at `address`, or start one of this machine alone, with its files below `temporary`.

    Raises WorkerError when it cannot be reached: clusters are restarted, so trying again may help.
    """
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address is None:
        ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=gpus,
            include_dashboard=False,
            object_store_memory=_STORE_BYTES,  # of which the loads, a few numbers each, take next to nothing
            # Ray opens the folder to every user of the machine; the one around it stays closed.
            _temp_dir=f"{temporary}/r",
            **quiet,
        )
        return
    host, colon, port = address.rpartition(":")
    try:
        if colon:  # Ray itself would wait for minutes
            socket.create_connection((host.strip("[]"), int(port)), _REACH_SECONDS).close()
        ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WorkerError(
            f"no Ray cluster can be reached at {address}: {reason}",
            remedy="give the address that `ray status` or `ray start` tells, on one of its nodes",
            field="ray_address",
        ) from error


def living() -> dict[str, Node]:
    """The nodes of the cluster, by their ids."""
    import ray

    return {
        each["NodeID"]: Node(each["Resources"].get("CPU", 0.0), each["Resources"].get("GPU", 0.0))
        for each in ray.nodes()  # type: ignore[no-untyped-call]
        if each["Alive"]
    }


class _Look(threading.Thread):
    """Tells of open loads, and of a lost node, for as long as the process lives."""

    def __init__(self, board: Any, speaker: _Speaker) -> None:
        super().__init__(daemon=True)
        self._done: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._board, self._speaker = board, speaker

    def forget(self, load: int) -> None:
        """A load is done, and open no more."""
        self._done.put(load)

    def run(self) -> None:
        """Look around every now and then."""
        import ray

        before = [0, 0]
        while True:
            time.sleep(_LOOK_SECONDS)
            done = [self._done.get() for _ in range(self._done.qsize())]
            try:
                *found, nodes = ray.get(self._board.read.remote(done))
            except ray.exceptions.RayError:
                self._speaker.say("lost", reason="the actor that hears of progress cannot start, or is gone")
                return
            if nodes - living().keys():
                self._speaker.say("lost", reason="a node with an actor is gone")
                return
            if found != before:
                before = found
                self._speaker.say("open", rows=found[0], tokens=found[1])


def run(job: Mapping[str, Any], speaker: _Speaker) -> None:
    """Have every load of a job done. Raises UsageError when there is no room for it."""
    import pyarrow as pa
    import ray
    import ray.data
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes, places = list(living().values()), job["places"]
    wanted = pool(nodes, places, job["threads"], all_of_them=job["first"] and places[0] != TOKENISER)
    spec = job["spec"] | {"device": "cuda:0" if wanted.gpus else job["spec"]["device"]}
    if wanted.gpus:
        spec["renderers"] = wanted.renderers if spec["renderers"] is None else spec["renderers"]
    else:
        spec |= {"threads": wanted.cpus, "renderers": 0}
    speaker.say("began", threads=wanted.cpus or None)
    here = ray.get_runtime_context().get_node_id()
    board = (
        ray.remote(Board)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False))
        .remote()
    )
    look = _Look(board, speaker)
    look.start()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    tables = [
        pa.table({"load": [number], "first": [first], "stop": [stop]}) for number, first, stop in job["loads"]
    ]
    results = ray.data.from_arrow(tables).map_batches(
        Scorer,
        fn_constructor_args=(job["folder"], spec, job["worker"], job["version"], board),
        compute=ray.data.ActorPoolStrategy(
            size=min(wanted.size, len(tables)), max_tasks_in_flight_per_actor=_IN_FLIGHT
        ),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=wanted.cpus,
        num_gpus=wanted.gpus,
        max_restarts=_RESTARTS,
        max_task_retries=_RETRIES,
    )
    for load, said in _rows(results):
        look.forget(load)
        speaker.say("done", load=load, **said)
    speaker.say("ended")


def _rows(results: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    for table in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for row in table.to_pylist():
            yield row["load"], json.loads(row["said"])


def _drive(lines: TextIO, speaker: _Speaker) -> None:
    where = json.loads(lines.readline())
    temporary: str | None = where["temporary"]
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines, jobs, temporary), daemon=True).start()
    try:
        connect(**where)
        speaker.say("connected", nodes=[[node.cpus, node.gpus] for node in living().values()])
        run(json.loads(jobs.get()), speaker)
    except DataprunerError as error:
        speaker.say("refused", **told(error))
    except Exception as error:  # whatever Ray has to say
        _explain(error, speaker)
    finally:
        _leave(temporary)


def _explain(error: Exception, speaker: _Speaker) -> None:
    """Tell of an error that is not ours: that a node or an actor is gone, or what cannot be tried again."""
    from ray.exceptions import RayError, RayTaskError

    traceback.print_exception(error)
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    passing = isinstance(error, RayError) and not isinstance(error, RayTaskError)
    if passing and "creation task" not in str(error):
        speaker.say("lost", reason=reason)
    elif "No module named 'datapruner" in str(error):
        speaker.say(
            "refused", **told(UsageError("a node of the Ray cluster has no datapruner", remedy=_INSTALL))
        )
    else:
        speaker.say("refused", **told(WorkerError(f"measuring on the Ray cluster failed: {reason}")))


def _listen(lines: TextIO, jobs: queue.SimpleQueue[str], temporary: str | None) -> None:
    """Pass the job on, and end the process when whoever started it is gone, or wants it to."""
    for line in lines:
        jobs.put(line)
    late = threading.Timer(_LEAVE_SECONDS, _vanish, (temporary,))
    late.daemon = True
    late.start()
    _leave(temporary)
    os._exit(0)


def _vanish(temporary: str | None) -> None:
    if temporary is not None:
        shutil.rmtree(temporary, ignore_errors=True)
    os._exit(1)


def _leave(temporary: str | None) -> None:
    import ray

    ray.shutdown()
    if temporary is not None:
        shutil.rmtree(temporary, ignore_errors=True)


def main() -> None:
    """Drive as the standard streams say; what libraries print goes to standard error."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    sys.modules["torch"] = None  # type: ignore[assignment]  # as if not installed: Ray needs none
    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _drive(os.fdopen(os.dup(0), encoding="utf-8"), _Speaker(out))


if __name__ == "__main__":
    main()
