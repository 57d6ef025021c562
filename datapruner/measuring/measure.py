"""Get every sample of a corpus measured: what the cache lacks goes through the proxy model, once.

Notable choices:
- rows are read in windows of a few thousand, sorted by length inside a window and cut into tasks of a few
  hundred, on a GPU more of both: batches waste little padding, memory is bounded, and a crash costs little;
- the proxy model's files decide the cache key without being loaded, so a corpus that is fully measured
  starts no worker;
- a run that reads nothing of the model has its samples tokenised and no more, in processes without a model.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from datapruner.corpora.corpus import BATCH_ROWS, Corpus
from datapruner.errors import ModelError
from datapruner.measuring.cluster import executor
from datapruner.measuring.cluster.executor import Cluster
from datapruner.measuring.cluster.pool import TOKENISER
from datapruner.measuring.signal_cache import NO_MODEL, ProxyKey, SignalCache
from datapruner.measuring.workers import local
from datapruner.measuring.workers.spec import WorkerSpec, wire
from datapruner.progress import Count, Progress
from datapruner.request.config import Reading
from scorers.conversations.conversation import Conversation
from scorers.models.sources import ALIASES, ModelSourceError, ProxyFolder, pull, resolve
from scorers.signals.columns import SIGNAL_VERSION

WINDOW_ROWS = 4096
TASK_ROWS = 256
TASK_CHARACTERS = 4_000_000
GPU_WINDOW_ROWS = 16_384
GPU_TASK_ROWS = 4096  # several batches of a GPU, a hundred of a processor
WINDOW_CHARACTERS = 64_000_000
_RENDERERS = 4  # feed a GPU with a small model
_TOKENISERS = 8  # one process feeds them all


@dataclass(frozen=True, slots=True)
class Machine:
    """Where measuring happens. Nothing here changes a number beyond rounding.

    `models` is the folder of proxy models' files, by default inside the home that signals are kept in. With
    `idle`, measuring processes stay for whoever measures next. `begun`: those that load their model already,
    for the first measuring; they end with it. `cluster`: of Ray, to measure there and not here; `devices` are
    then a place for each of its actors.
    """

    devices: Sequence[str]
    token_budget: int | None = None
    threads: int | None = None
    models: Path | None = None
    idle: local.IdleWorkers | None = None
    begun: local.IdleWorkers | None = None
    cluster: Cluster | None = None

    def run(
        self,
        spec: WorkerSpec,
        tasks: Iterable[local.Task],
        count: Count,
        worker: Sequence[str] | None = None,
        places: Sequence[str] | None = None,
    ) -> dict[str, str]:
        """Have all tasks done by processes on the devices, or on these `places`; sample id -> why it failed.

        `worker` starts such a process, by default one that measures. Raises as `local.measure` or
        `executor.measure`.
        """
        where = self.devices if places is None else places
        worker = worker or local.WORKER
        if self.cluster is None:
            running = local.measure(spec, where, tasks, count, worker, self.idle, count.tell)
        else:
            threads = self.threads or _threads_set()
            running = executor.measure(
                spec, where, tasks, count, worker, cluster=self.cluster, threads=threads, on_wait=count.tell
            )
        return dict(running)


@contextmanager
def sharing(machine: Machine) -> Iterator[Machine]:
    """The machine with processes that stay from one measuring to the next. Unless it keeps some already, they
    end with the block."""
    own = machine.begun or local.IdleWorkers()
    try:
        yield replace(machine, idle=machine.idle or own)
    finally:
        own.close()


@dataclass(frozen=True, slots=True)
class Measurement:
    """Where the signals of a corpus are, and which samples have none.

    errors: sample id -> reason. measured: samples that went through the model now. seconds: of doing so.
    """

    proxy: ProxyFolder
    cache: SignalCache
    errors: dict[str, str]
    measured: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Pass:
    """One way to measure samples: which model reads what of them, and what else decides the signals.

    `template` is a chat template to use instead of the model's own, "" ours for models without one. `fuller`
    is the key of a cache that is used instead where it has all samples already.
    """

    proxy: ProxyFolder
    key: ProxyKey
    template: str | None = None
    fuller: ProxyKey | None = None

    def tokens_only(self) -> Pass:
        """The same without the model: token ids and where the responses are."""
        key = replace(self.key, dtype=NO_MODEL, tied=False, lora=False)
        return replace(self, key=key, fuller=self.key)


def proxy_for(
    measuring: Reading,
    home: Path,
    devices: Sequence[str],
    *,
    needs: Iterable[str] = (),
    context: str = "full",
    fetch: bool = True,
) -> Pass:
    """The pass that measures `needs`: the proxy model, fetched if need be and allowed, and its cache key.

    Raises ModelError.
    """
    try:
        folder = resolve(measuring.model, home, local_only=not fetch)
    except ModelSourceError as error:
        raise ModelError(str(error)) from error
    key = ProxyKey(
        model=measuring.model,
        revision=folder.revision,
        template_hash=folder.template_hash,
        dtype=dtype_of(measuring, devices),
        max_length=measuring.max_length,
        overflow=measuring.overflow,
        train_on=measuring.train_on,
        tied="tied_grad_norm" in needs,
        signal_version=SIGNAL_VERSION,
        context=context,
        lora="lora_effort" in needs,
    )
    return Pass(folder, key)


def find_model(measuring: Reading, home: Path, progress: Progress) -> None:
    """Fetch the proxy model if it is an alias that is not there, and say so. Raises ModelError."""
    progress.stage("finding the proxy model", None, "steps")
    if measuring.model in ALIASES:
        try:
            pull(measuring.model, home, lambda said: progress.stage(said, None, "steps"))
        except ModelSourceError as error:
            raise ModelError(str(error)) from error


def dtype_of(measuring: Reading, devices: Sequence[str]) -> str:
    """The precision in which models are loaded on these devices."""
    if measuring.dtype != "auto":
        return measuring.dtype
    return "float32" if devices[0].startswith("cpu") else "bfloat16"


class Plan(Protocol):
    """Which rows a measuring set out to do, kept so that a second attempt cuts them into the same tasks: a
    batch's company decides the last bits of its results."""

    def rows(self) -> list[int] | None:
        """What was kept, None before that."""
        ...

    def keep(self, rows: list[int]) -> None:
        """Make `rows()` return these from now on."""
        ...


def measure(
    corpus: Corpus,
    wanted: Pass,
    home: Path,
    machine: Machine,
    *,
    progress: Progress,
    plan: Plan | None = None,
    stage: str = "measuring",
    without: Collection[str] = (),
) -> Measurement:
    """Measure every sample of the corpus that the cache lacks, but those `without`, by their ids.

    `stage` is what to call that.

    With `plan`, an attempt that follows a broken one gives the same bytes as one that was not disturbed, and
    `measured` counts for all of them.

    Raises ModelError when the model cannot be used, WorkerError when measuring cannot start.
    """
    proxy, key = wanted.proxy, wanted.key
    cache = SignalCache(home, key)
    index = corpus.sample_index().filter(pl.col("duplicate_of").is_null())
    index = index.filter(~pl.col("sample_id").is_in(list(without)))
    planned = None if plan is None else plan.rows()
    if wanted.fuller is not None and planned is None:
        fuller = SignalCache(home, wanted.fuller)
        if len(fuller.status(index["sample_id"])) == len(index):
            cache = fuller
    known = cache.status(index["sample_id"])
    errors = dict(known.drop_nulls("error").select("sample_id", "error").iter_rows())
    missing = index.join(known, on="sample_id", how="anti", maintain_order="left")
    if missing.is_empty():
        return Measurement(proxy, cache, errors, len(planned or ()), 0.0)
    # With rows that were measured when the plan was made, too: signals may be lost with a machine.
    rows = sorted({*(planned or ()), *missing["row"]})
    if rows != planned and plan is not None:
        plan.keep(rows)
    cache.create()
    spec = worker_spec(wanted, machine)
    progress.stage(stage if key.has_signals else "tokenising", len(missing), "samples")
    count = _Measured(progress, "loading the model" if key.has_signals else "loading the tokenizer")
    started = time.monotonic()
    on_gpu = key.has_signals and not machine.devices[0].startswith("cpu")
    sizes = (GPU_WINDOW_ROWS, GPU_TASK_ROWS) if on_gpu else (WINDOW_ROWS, TASK_ROWS)
    tasks = _tasks(corpus, rows, cache.folder, set(missing["sample_id"]), *sizes)
    if key.has_signals:
        failed = machine.run(spec, tasks, count)
    else:
        failed = machine.run(spec, tasks, count, local.TOKENISER, tokenisers(machine, len(rows)))
    seconds = time.monotonic() - started
    # All samples anew, as a task that lacked one did the others again and replaced its shard. Another run on
    # the same home may have measured meanwhile what failed in this one.
    cache = SignalCache(home, key)
    found = dict(cache.status(index["sample_id"]).iter_rows())
    failed = {sample_id: reason for sample_id, reason in failed.items() if sample_id not in found}
    errors = {sample_id: reason for sample_id, reason in found.items() if reason is not None} | failed
    lost = len(index) - len(found) - len(failed)
    assert lost == 0, f"{lost} samples were neither measured nor reported as failed"
    return Measurement(proxy, cache, errors, len(rows), seconds)


class Model(Protocol):
    """The files of a model."""

    @property
    def path(self) -> Path:
        """The folder that they are in."""
        ...

    @property
    def revision(self) -> str:
        """Which they are."""
        ...


def worker_spec(wanted: Pass, machine: Machine) -> WorkerSpec:
    """What a measuring process is told of this pass."""
    return replace(spec_of(wanted.proxy, wanted.key, machine), template=wanted.template)


def spec_of(model: Model, key: ProxyKey, machine: Machine) -> WorkerSpec:
    """What a process is told that reads samples by a model, of whatever kind, for what has this key."""
    return WorkerSpec(
        folder=str(model.path),
        revision=model.revision,
        dtype=key.dtype,
        max_length=key.max_length,
        overflow=key.overflow,
        train_on=key.train_on,
        tied=key.tied,
        device=machine.devices[0] if key.has_signals else TOKENISER,
        token_budget=machine.token_budget,
        threads=machine.threads or _threads(machine.devices),
        context=key.context,
        lora=key.lora,
        renderers=_renderers(machine.devices) if key.has_signals else 0,
    )


class _Measured(Count):
    """Counts samples and tokens that went through the model, and says how fast."""

    def __init__(self, progress: Progress, before: str) -> None:
        super().__init__(progress, before)
        self._tokens = 0
        self._started = time.monotonic()

    def __call__(self, rows: int, tokens: int = 0) -> None:
        self._tokens += tokens
        self.progress.measured(self.done + rows, self._tokens)
        self.note = f"{self._tokens / max(time.monotonic() - self._started, 1e-9):,.0f} tokens/s"
        super().__call__(rows)


def _threads(devices: Sequence[str]) -> int | None:
    """Share the processors that are ours among CPU workers, unless OMP_NUM_THREADS says otherwise.

    None is torch's default, which reads that variable, and enough for a worker on a GPU.
    """
    if not devices[0].startswith("cpu") or _threads_set() is not None:
        return None
    return max(1, _processors() // len(devices))


def _threads_set() -> int | None:
    """What OMP_NUM_THREADS says, if it does."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(said) if said.isdecimal() and int(said) else None


def _renderers(devices: Sequence[str]) -> int:
    """Processes that render for each device. On a processor the model takes a thousand times as long."""
    if devices[0].startswith("cpu") or len(devices) > _processors():
        return 0
    return min((_processors() - len(devices)) // len(devices), _RENDERERS)


def _processors() -> int:
    """Processors that are ours."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def tokenisers(machine: Machine, rows: int) -> list[str]:
    """A name for the place of each process that tokenises so many rows; devices are for models."""
    return [TOKENISER] * min(machine.threads or _processors(), _TOKENISERS, 1 + rows // WINDOW_ROWS)


def _tasks(
    corpus: Corpus,
    rows: Sequence[int],
    folder: Path,
    missing: set[str],
    window_rows: int | None = None,
    task_rows: int | None = None,
) -> Iterator[local.Task]:
    """The rows cut into tasks, without those tasks that have none of the `missing` samples left."""
    for samples in cut(corpus, rows, window_rows, task_rows):
        if any(sample["id"] in missing for sample in samples):
            yield local.Task(samples, folder)


def cut(
    corpus: Corpus, rows: Sequence[int], window_rows: int | None = None, task_rows: int | None = None
) -> Iterator[list[dict[str, Any]]]:
    """The samples of these rows, sorted, in wire form and in tasks of about one length each.

    The numbers of rows are by default those for a processor.
    """
    window_rows, task_rows = window_rows or WINDOW_ROWS, task_rows or TASK_ROWS
    window: list[tuple[int, str, Conversation]] = []
    held = 0
    for batch in corpus.conversations(rows, min(BATCH_ROWS, window_rows)):
        found = [(_characters(conversation), sample_id, conversation) for _, sample_id, conversation in batch]
        if len(window) + len(found) > window_rows or held > WINDOW_CHARACTERS:
            yield from _cut_window(window, task_rows)
            window, held = [], 0
        window += found
        held += sum(size for size, _, _ in found)
    yield from _cut_window(window, task_rows)


def _cut_window(window: list[tuple[int, str, Conversation]], rows: int) -> Iterator[list[dict[str, Any]]]:
    samples: list[dict[str, Any]] = []
    total = 0
    for size, sample_id, conversation in sorted(window, key=lambda item: item[:2]):
        samples.append(wire(sample_id, conversation))
        total += size
        if len(samples) == rows or total > TASK_CHARACTERS:
            yield samples
            samples, total = [], 0
    if samples:
        yield samples


def _characters(conversation: Conversation) -> int:
    return sum(len(turn.content) for turn in conversation.turns)
