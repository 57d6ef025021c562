"""What a Ray cluster costs beside this machine's own processes, with as many of them and the same result.

    python -m benchmarks.cluster [--data rows.jsonl|.parquet] [--rows 64 192] [--processes 2] [--repeats 2]

Rows are measured by actors of a Ray that is started on this machine, and by processes of this machine, in
turns, with one thread a process; that their shards have the same bytes is checked. Processor seconds are of
all processes, Ray's own included (looked at every tenth of a second, so that the last of those that end
count a little less). Part of it is starting, which the figures of several numbers of rows tell apart.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil

from benchmarks import rows as benchmark_rows
from benchmarks.figures import figure
from benchmarks.processes import Took
from datapruner.corpora.corpus import Corpus
from datapruner.corpora.ingest import ingest
from datapruner.measuring.cluster.executor import Cluster
from datapruner.measuring.measure import Machine, measure, proxy_for
from datapruner.progress import Silent
from datapruner.request.config import Measuring

_LOOK_SECONDS = 0.1


@contextmanager
def watched() -> Iterator[Took]:
    """What the block takes of wall and processor, that of processes which are nobody's children in the end
    included; filled in at its end."""
    took, began, over = Took(), time.perf_counter(), threading.Event()
    seen: dict[int, float] = {}

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    seen[process.pid] = times.user + times.system

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    own = time.process_time()
    try:
        yield took
    finally:
        over.set()
        watcher.join()
        took.wall = time.perf_counter() - began
        took.processor = sum(seen.values()) + time.process_time() - own


def measured(corpus: Corpus, model: str, models: Path, machine: Machine) -> tuple[Took, dict[str, bytes]]:
    """What it takes to measure a corpus, and the shards that come of it."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        wanted = proxy_for(Measuring(model=model), models, machine.devices)
        with watched() as took:
            found = measure(corpus, wanted, home, machine, progress=Silent())
        assert not found.errors, found.errors
        return took, {path.name: path.read_bytes() for path in found.cache.shards()}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="a file of rows; made-up ones by default")
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 192])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args(argv)
    models = Path(os.environ.get("DATAPRUNER_HOME", Path.home() / ".datapruner"))
    here = Machine(("cpu",) * given.processes, threads=1, models=models)
    there = Machine(here.devices, threads=1, models=models, cluster=Cluster())
    with tempfile.TemporaryDirectory() as name:
        for rows in given.rows:
            path = Path(name) / f"{rows}.duckdb"
            ingest(benchmark_rows.rows_of(given.data, rows), out=path)
            with Corpus(path) as corpus:
                by_name = {"here": here, "there": there}
                took: dict[str, list[Took]] = {"here": [], "there": []}
                shards: list[dict[str, bytes]] = []
                for _ in range(given.repeats):
                    for which, machine in by_name.items():
                        seconds, found = measured(corpus, given.model, models, machine)
                        took[which].append(seconds)
                        shards.append(found)
                assert all(each == shards[0] for each in shards), "the shards differ"
            said = f"measuring {rows:,} rows by {given.processes} actors of Ray"
            for unit, part in (("s", "wall"), ("processor s", "processor")):
                theirs, ours = (
                    median(getattr(each, part) for each in took[which]) for which in ("there", "here")
                )
                against = f"{given.processes} processes of this machine"
                figure(said, theirs, against=against, baseline=ours, unit=unit)


if __name__ == "__main__":
    main()
