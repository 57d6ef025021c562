"""A few rows through the processes that a run would measure with, and how long each part of them took.

Notable choices:
- what is timed are neighbours by length that fill one batch, each a task of its own: so a batch is as evenly
  filled as in a run, which sorts thousands of rows, and long rows have a rate of their own;
- rows are as long as the tokens that are read of them: by characters, many of which are cut off, the draw
  alone is off by 9 % for reasoning traces, by tokens by 1 % (`docs/capacity.md`);
- they are timed in turns over all lengths, so that a machine that slows down meanwhile widens the interval
  and does not tilt the result;
- a first task, which is not counted, waits for the process and its model;
- what comes of it is thrown away: a run that follows measures as if there had been none.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datapruner.errors import WorkerError
from datapruner.measuring.measure import TASK_ROWS, Machine
from datapruner.measuring.workers import local, shards
from datapruner.measuring.workers.spec import WorkerSpec
from datapruner.planning.strata import Read, Stratum, clusters, strata, total
from datapruner.progress import Count, Progress
from datapruner.schemas.plans import Expected
from scorers.signals.columns import Ints

STRATA = 8
ROUNDS = 4
_LONG_BATCHES = 1
_LEAST_ROUNDS = 2
_ENOUGH_SECONDS = 30.0
_BATCH_TOKENS = {"cpu": 1024, "cuda": 65_536}
_PACKED = 0.05
"""By how much the same rows may take more or less room beside other rows."""
_SEED = 0
_KIB = 1024

Columns = tuple[Ints, Ints]
"""Rows of a corpus and their tokens, counted or about, over 0, (N,) each."""

Samples = Callable[[Sequence[int]], list[dict[str, Any]]]
"""What a process is sent of these rows."""


@dataclass(frozen=True, slots=True)
class Timed:
    """What was read in how long. start: seconds until the process had its model. seconds: of all the rows
    drawn from, without that. size: bytes of their signals."""

    start: float
    seconds: Expected
    size: Expected
    rows: int
    tokens: int
    spent: float


@dataclass(frozen=True, slots=True)
class _Sent:
    """A task: its stratum, the size of its rows, how many rows were sent until its end, and its shard."""

    stratum: int
    size: float
    until: int
    out: Path


class _Clock(Count):
    """When how many rows were read."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(progress)
        self.tokens = 0
        self.broken = False
        self._times: list[tuple[int, float]] = []

    def __call__(self, rows: int, tokens: int = 0) -> None:
        self.broken |= rows < 0
        self.tokens += tokens
        self._times.append((self.done + rows, time.monotonic()))
        super().__call__(rows)

    def at_row(self, row: int) -> float:
        """When so many had been read."""
        return next(moment for done, moment in self._times if done >= row)


def peak_bytes() -> int:
    """Of the largest process that this one has started and that has ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _KIB


def timed(
    spec: WorkerSpec,
    rows: Columns,
    samples: Samples,
    folder: Path,
    machine: Machine,
    progress: Progress,
    worker: Sequence[str] = local.WORKER,
) -> Timed:
    """How long all these rows take one device; some are measured into `folder`.

    Raises as `local.measure` does, and WorkerError when a process died of a row.
    """
    batch = _batch_size(spec)
    parts = strata(*rows, _strata(rows[1], batch))
    chosen = _chosen(parts, batch)
    sent: list[_Sent] = []
    dispatched = warmed = 0

    def tasks() -> Iterator[local.Task]:
        nonlocal dispatched, warmed
        warm = folder / "first"
        warm.mkdir(parents=True)
        first = local.Task(samples(chosen[0][1].rows[:1].tolist()), warm)
        if first.samples:
            dispatched = warmed = len(first.samples)
            yield first
        started = time.monotonic()
        for at, (number, cluster) in enumerate(chosen):
            enough = at >= _LEAST_ROUNDS * len(parts)
            if enough and time.monotonic() - started > _ENOUGH_SECONDS:
                return
            task = local.Task(samples(cluster.rows.tolist()), folder)
            if task.samples:
                dispatched += len(task.samples)
                sent.append(_Sent(number, cluster.whole, dispatched, task.out))
                yield task

    clock = _Clock(progress)
    started = time.monotonic()
    for _ in local.measure(
        spec, [spec.device], tasks(), clock, worker, idle=machine.idle, on_wait=clock.tell
    ):
        pass  # a row that fails costs what it costs in a run
    if clock.broken or clock.done != dispatched:
        raise WorkerError(
            "a measuring process died of one of the rows that were tried", remedy="a run finds which one"
        )
    if not sent:  # of rows that have nothing to read
        return Timed(0.0, Expected.counted(0), Expected.counted(0), 0, 0, 0.0)
    before = loaded = clock.at_row(1)
    seconds: list[list[tuple[float, float]]] = [[] for _ in parts]
    for each in sent:
        after = clock.at_row(each.until)
        seconds[each.stratum].append((each.size, after - before))
        before = after
    return Timed(
        start=loaded - started,
        seconds=total(_read(parts, seconds)),
        size=_size(parts, sent, folder),
        rows=sent[-1].until - warmed,
        tokens=clock.tokens,
        spent=before - loaded,
    )


def _batch_size(spec: WorkerSpec) -> float:
    kind = "cuda" if spec.device.startswith("cuda") else "cpu"
    return float(spec.token_budget or _BATCH_TOKENS[kind])


def _strata(tokens: Ints, batch: float) -> int:
    """How many strata to read of: half as many where a row by itself takes longer than a batch, and no more
    than have full batches enough."""
    sizes = tokens.astype(np.float64)
    count = STRATA // 2 if (sizes @ sizes) > _LONG_BATCHES * batch * sizes.sum() else STRATA
    return max(1, min(count, int(sizes.sum() // (ROUNDS * batch))))


def _chosen(parts: Sequence[Stratum], size: float) -> list[tuple[int, Stratum]]:
    """The clusters to read, each with the number of its stratum: in turns, each over all strata that have
    any left. Of each stratum that has several there are at least two."""
    rng = np.random.default_rng(_SEED)
    drawn: list[list[Stratum]] = []
    for part in parts:
        # no fewer than are read, where there are rows enough
        found = clusters(part, min(size, part.whole / ROUNDS))
        some = rng.choice(len(found), min(ROUNDS, len(found)), replace=False)
        drawn.append([found[number] for number in some.tolist()])
    turns: list[tuple[int, Stratum]] = []
    for turn in range(ROUNDS):
        order = rng.permutation(len(parts)).tolist()
        turns += [(number, drawn[number][turn]) for number in order if turn < len(drawn[number])]
    return turns


def _read(parts: Sequence[Stratum], found: Sequence[Sequence[tuple[float, float]]]) -> list[Read]:
    """Sizes and values of what was read of each stratum; one in which there was nothing to read has none."""
    read: list[Read] = []
    for part, pairs in zip(parts, found, strict=True):
        if pairs:
            sizes, values = (np.array(column, np.float64) for column in zip(*pairs, strict=True))
            read.append(Read(part.whole, sizes, values))
    return read


def _size(parts: Sequence[Stratum], sent: Sequence[_Sent], folder: Path) -> Expected:
    """Bytes of the signals of all rows. A shard takes so much to begin with, as its first rows pack worse
    than those after them, and so much for its rows; a run has one for each of its tasks. What it begins with
    is what the shards that were written take more, each for all but one, than one of all their rows."""
    written = [each for each in sent if each.out.is_file()]
    if not written:
        return Expected.counted(0)
    one = folder / "one.parquet"
    shards.publish(one, pa.concat_tables([pq.read_table(each.out) for each in written]))
    sizes = [_data_bytes(each.out) for each in written]
    begun = max(0.0, (sum(sizes) - _data_bytes(one)) / max(1, len(sizes) - 1))
    data: list[list[tuple[float, float]]] = [[] for _ in parts]
    for each, size in zip(written, sizes, strict=True):
        data[each.stratum].append((each.size, size - begun))
    tasks = math.ceil(sum(len(part.rows) for part in parts) / TASK_ROWS)
    of_file = begun + one.stat().st_size - _data_bytes(one)
    found = total(_read(parts, data)) + Expected.counted(tasks * of_file)
    margin = _PACKED * found.value
    low, high = min(found.low, found.value - margin), max(found.high, found.value + margin)
    return Expected(value=found.value, low=low, high=high)


def _data_bytes(path: Path) -> int:
    """Bytes of a shard's columns, without what it says of them."""
    about = pq.read_metadata(path)
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    return sum(group.column(at).total_compressed_size for group in groups for at in range(group.num_columns))
