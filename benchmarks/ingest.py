"""How fast, and in how much memory, rows become a published corpus.

    python -m benchmarks.ingest [--rows 52000] [--memory-rows 1000000] [--repeats 3]

Writes its own synthetic Alpaca-like rows (about 430 bytes of JSON each). Processor seconds are the median of
the repeats, taken in turns so that a busy machine slows all of them alike; the baseline is parsing each line
with `json.loads` and doing nothing more. Peak memory is that of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from benchmarks.figures import figure
from benchmarks.processes import alone, in_turns, peak_mib, timed
from datapruner.corpora.ingest import ingest

BASELINE = "json.loads per line"


def synthetic(count: int) -> Iterator[dict[str, str]]:
    """Alpaca-like rows: the instruction and half of the time an input, then a response of some sentences."""
    random.seed(7)
    words = ["".join(random.choices("etaoinshrdlu", k=random.randint(2, 9))) for _ in range(4000)]

    def text(length: int) -> str:
        return " ".join(random.choices(words, k=length))

    for number in range(count):
        given = text(9) if number % 2 else ""
        yield {"instruction": f"{number}: {text(10)}", "input": given, "output": text(random.randint(20, 60))}


def speed(folder: Path, count: int, repeats: int) -> None:
    rows = list(synthetic(count))
    lines, array, parquet = folder / "rows.jsonl", folder / "rows.json", folder / "rows.parquet"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    array.write_text(json.dumps(rows, indent=4))
    pl.DataFrame(rows).write_parquet(parquet)
    out = folder / "corpus.duckdb"
    del rows
    runs: dict[str, Callable[[], object]] = {
        BASELINE: lambda: [json.loads(line) for line in lines.read_bytes().splitlines()],
        "polars read_ndjson and Parquet": lambda: pq.write_table(
            pl.read_ndjson(lines).to_arrow(), folder / "copy.parquet", compression="zstd"
        ),
        "ingest, JSON lines": lambda: ingest(lines, out=out),
        "ingest, indented JSON array": lambda: ingest(array, out=out),
        "ingest, Parquet": lambda: ingest(parquet, out=out),
    }
    took = in_turns(runs, repeats)
    print(f"{count:,} rows")
    baseline = took.pop(BASELINE).processor
    for name, each in took.items():
        figure(name, each.processor, against=BASELINE, baseline=baseline, unit="processor s")
        print(f"    {count / each.wall:,.0f} rows/s")


def memory(folder: Path, count: int) -> None:
    path, out = folder / "many.jsonl", folder / "many.duckdb"
    with path.open("w") as file:
        for row in synthetic(count):
            file.write(json.dumps(row) + "\n")
    with timed() as took:
        peak = alone("ingest", "--alone", str(path), str(out))
    read, written = (file.stat().st_size / 1e6 for file in (path, out))
    print(f"{count:,} rows: {took.wall:.1f} s, {read:,.0f} MB become {written:,.0f} MB")
    figure(f"peak memory, {count:,} rows", peak, against="2 GB", baseline=2e9 / 2**20, unit="MiB", at_most=1)


def ingest_alone(rows: str, out: str) -> None:
    """Prints the peak memory of this process, in MiB."""
    report = ingest(rows, out=Path(out))
    assert report.rejected == 0, report
    print(peak_mib())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=52_000, help="rows of the speed table")
    parser.add_argument("--memory-rows", type=int, default=1_000_000, help="rows whose peak memory is taken")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", nargs=2, metavar=("ROWS", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.alone:
        ingest_alone(*arguments.alone)
        return
    with tempfile.TemporaryDirectory() as name:
        speed(Path(name), arguments.rows, arguments.repeats)
        memory(Path(name), arguments.memory_rows)


if __name__ == "__main__":
    main()
