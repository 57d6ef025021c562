"""How much of the time a device is busy while rows are measured, and what the rest of the work costs it.

    python -m benchmarks.feeding [--data rows.parquet] [--rows 6144] [--rate 300000] [--renderers 1]

Real rows go through the measuring pipeline: read from a corpus, rendered, tokenised, measured, written as
shards. The baseline does the same one after the other in one loop. The device is a stand-in: it sleeps for as
long as one that reads `--rate` tokens/s would take; or, with `--rate 0`, it is the real model on the CPU.
Rendering and the device should take about equally long for what feeding does to show: with fewer processors
than a machine with a GPU has, at a lower rate than its own.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import rows as benchmark_rows
from benchmarks.figures import figure
from benchmarks.processes import ROOT
from datapruner.corpora.corpus import Corpus
from datapruner.corpora.ingest import ingest
from datapruner.measuring.measure import GPU_TASK_ROWS, GPU_WINDOW_ROWS, cut
from datapruner.measuring.workers import local, protocol
from datapruner.measuring.workers.renderers import Renderers
from datapruner.measuring.workers.spec import WorkerSpec
from datapruner.measuring.workers.worker import Worker
from scorers.models.sources import resolve
from scorers.signals.forward import Measured

_BUDGET = 65_536


class Device:
    """Stands between the worker and its device: notes when that is busy, and with a rate sleeps instead."""

    def __init__(self, forward: Any, rate: float) -> None:
        self._forward, self._rate = forward, rate
        self.projection, self.head, self.head_norm = forward.projection, forward.head, forward.head_norm
        noise = np.random.default_rng(0)
        k = self.projection.vocabulary.shape[0] * self.projection.hidden.shape[0]
        self._vectors = [
            noise.standard_normal(n).astype(np.float32) for n in (k, self.head.weight.shape[1], 65_536)
        ]
        self.busy: list[tuple[float, float]] = []

    def measure(self, samples: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        if not self._rate:
            began = time.monotonic()
            yield from self._forward.measure(samples)
            self.busy.append((began, time.monotonic()))
            return
        batch: list[int] = []
        for i, sample in enumerate(samples):
            batch.append(i)
            if (len(batch) + 1) * len(sample.input_ids) > _BUDGET or i + 1 == len(samples):
                began = time.monotonic()
                time.sleep(sum(len(samples[at].input_ids) for at in batch) / self._rate)
                self.busy.append((began, time.monotonic()))
                yield from ((at, self._measured(len(samples[at].position))) for at in batch)
                batch = []

    def _measured(self, n: int) -> Measured:
        projection, hidden, values = self._vectors
        some = values[:n]
        return Measured(some, some, some, some > 0, 1.0, 1.0, projection, hidden, hidden)


class Stand(Worker):
    """The real worker, but for its device."""

    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec)
        self.device = Device(self.forward, float(os.environ["FEEDING_RATE"]))
        self.forward = self.device  # type: ignore[assignment]

    def run(self, task: dict[str, Any]) -> Iterator[Any]:
        yield from super().run(task)
        if path := os.environ.get("FEEDING_TIMES"):
            Path(path).write_text(json.dumps(self.device.busy), encoding="utf-8")


def one_loop(spec: WorkerSpec, tasks: Sequence[Sequence[dict[str, Any]]], folder: Path) -> Any:
    """Everything one after the other; when the device was busy."""
    worker = Stand(spec)
    for number, samples in enumerate(tasks):
        *_, write = worker.run({"task": 0, "out": str(folder / f"{number}.parquet"), "samples": samples})
        assert callable(write)
        write()
    return worker.device.busy


def pipeline(spec: WorkerSpec, tasks: Sequence[Sequence[dict[str, Any]]], folder: Path) -> Any:
    """The measuring pipeline; when the device was busy."""
    times = folder / "times.json"
    os.environ["FEEDING_TIMES"] = str(times)
    work = (local.Task(samples, folder) for samples in tasks)
    # such processes take no modules from the working directory, where this one is
    worker = (
        "-c",
        f"import sys; sys.path.append({str(ROOT)!r}); from benchmarks import feeding; feeding.serve()",
    )
    failed = list(local.measure(spec, ["cpu"], work, lambda *_: None, worker))
    del os.environ["FEEDING_TIMES"]
    assert not failed, failed
    return json.loads(times.read_text(encoding="utf-8"))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="a file of rows; made-up ones by default")
    parser.add_argument("--rows", type=int, default=6144)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rate", type=float, default=300_000.0, help="tokens/s; 0: the real model")
    parser.add_argument("--renderers", type=int, default=1)
    parser.add_argument("--task-rows", type=int, default=1024)
    given = parser.parse_args(argv)
    os.environ["FEEDING_RATE"] = str(given.rate)
    home = Path(os.environ.get("DATAPRUNER_HOME", Path.home() / ".datapruner"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ingest(benchmark_rows.rows_of(given.data, given.rows), out=folder / "rows.duckdb")
        with Corpus(folder / "rows.duckdb") as corpus:
            index = corpus.sample_index()["row"].to_list()[: given.rows]
            window, most = min(GPU_WINDOW_ROWS, given.rows), min(GPU_TASK_ROWS, given.task_rows)
            tasks = list(cut(corpus, index, window, most))
        count = sum(map(len, tasks))
        spec = WorkerSpec(
            str(resolve(given.model, home).path),
            "",
            "float32",
            2048,
            "truncate",
            "all",
            False,
            "cpu",
            None,
            1,
        )
        beside = WorkerSpec(
            **{name: getattr(spec, name) for name in spec.__slots__} | {"renderers": given.renderers}
        )
        seconds, shares = [], []
        for way, how in ((one_loop, spec), (pipeline, beside)):
            busy = way(how, tasks, folder)
            took = busy[-1][1] - busy[0][0]
            seconds.append(took)
            shares.append(sum(end - begin for begin, end in busy) / took)
    print(
        f"{count} rows in {len(tasks)} tasks, from the first batch to the last, {given.renderers} renderers"
    )
    rates = [count / each for each in seconds]
    figure("feeding: rows/s", rates[1], against="one loop", baseline=rates[0], unit="rows/s")
    figure(
        "feeding: the device is busy", shares[1], against="one loop", baseline=shares[0], unit="of the time"
    )


def serve() -> None:
    """Be a measuring process."""
    with Renderers() as beside:
        protocol.main(Stand, beside.ahead)


if __name__ == "__main__":
    main()
