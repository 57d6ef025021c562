"""How fast, and in how much memory, rows become a published corpus.

    python benchmarks/ingest.py [--rows 52000] [--memory-rows 1000000] [--repeats 3]

Writes its own synthetic Alpaca-like rows (about 430 bytes of JSON each). Every time is the best of the
repeats, taken in turns so that a busy machine slows all of them alike; the ratio is against parsing each
line with `json.loads` and doing nothing more. Peak memory is that of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from datapruner.corpora.ingest import ingest

_CHILD = """
import resource, sys
from pathlib import Path
from datapruner.corpora.ingest import ingest
report = ingest(sys.argv[1], out=Path(sys.argv[2]))
assert report.rejected == 0, report
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def synthetic(count: int) -> Iterator[dict[str, str]]:
    """Alpaca-like rows: the instruction and half of the time an input, then a response of some sentences."""
    random.seed(7)
    words = ["".join(random.choices("etaoinshrdlu", k=random.randint(2, 9))) for _ in range(4000)]

    def text(length: int) -> str:
        return " ".join(random.choices(words, k=length))

    for number in range(count):
        given = text(9) if number % 2 else ""
        yield {"instruction": f"{number}: {text(10)}", "input": given, "output": text(random.randint(20, 60))}


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def speed(folder: Path, count: int, repeats: int, console: Console) -> None:
    rows = list(synthetic(count))
    lines, array, parquet = folder / "rows.jsonl", folder / "rows.json", folder / "rows.parquet"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    array.write_text(json.dumps(rows, indent=4))
    pl.DataFrame(rows).write_parquet(parquet)
    out = folder / "corpus.duckdb"
    del rows
    runs: dict[str, Callable[[], object]] = {
        "json.loads per line": lambda: [json.loads(line) for line in lines.read_bytes().splitlines()],
        "polars read_ndjson + Parquet": lambda: pq.write_table(
            pl.read_ndjson(lines).to_arrow(), folder / "copy.parquet", compression="zstd"
        ),
        "ingest, JSON lines": lambda: ingest(lines, out=out),
        "ingest, JSON array, indented": lambda: ingest(array, out=out),
        "ingest, Parquet": lambda: ingest(parquet, out=out),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, work in runs.items():
            times[name].append(timed(work))
    base = min(times["json.loads per line"])[0]
    table = Table("", "rows/s", "seconds", "processor s", "times json.loads", title=f"{count:,} rows")
    for name, measured in times.items():
        wall, processor = min(measured)
        table.add_row(name, f"{count / wall:,.0f}", f"{wall:.2f}", f"{processor:.2f}", f"{wall / base:.1f}")
    console.print(table)


def memory(folder: Path, count: int, console: Console) -> None:
    path, out = folder / "many.jsonl", folder / "many.duckdb"
    with path.open("w") as file:
        for row in synthetic(count):
            file.write(json.dumps(row) + "\n")
    started = time.perf_counter()
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(path), str(out)], check=True, capture_output=True, text=True
    )
    wall = time.perf_counter() - started
    table = Table("rows", "input MB", "corpus MB", "seconds", "rows/s", "peak memory MB", title="memory")
    table.add_row(
        f"{count:,}",
        f"{path.stat().st_size / 1e6:,.0f}",
        f"{out.stat().st_size / 1e6:,.0f}",
        f"{wall:.1f}",
        f"{count / wall:,.0f}",
        f"{int(child.stdout) / 1024:,.0f}",
    )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=52_000, help="rows of the speed table")
    parser.add_argument("--memory-rows", type=int, default=1_000_000, help="0 to skip the memory table")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    console = Console()
    console.print(f"{os.cpu_count()} processors")
    with tempfile.TemporaryDirectory() as name:
        speed(Path(name), arguments.rows, arguments.repeats, console)
        if arguments.memory_rows:
            memory(Path(name), arguments.memory_rows, console)


if __name__ == "__main__":
    main()
