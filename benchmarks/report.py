"""The report of a run over many rows: processor seconds and peak memory of its document and of its page.

    python -m benchmarks.report [--rows 1000000] [--tokens 8] [--folder FOLDER]

Writes a corpus of made-up rows with signals and a Q-Tuning run over it, as `benchmarks.million` does, into a
folder that goes afterwards. The baseline, which reads the same file, is DuckDB's own SUMMARIZE of the run's
scores: the least, the greatest, the mean, approximate quartiles and distinct values of every column. Each is
measured in a process of its own, interpreter and libraries included.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb

from benchmarks import million
from benchmarks.figures import figure
from benchmarks.processes import alone, peak_mib, timed
from datapruner.reporting import document, page
from datapruner.rows.sql_text import literal
from datapruner.runs import published


def summarize(home: Path) -> None:
    run = published.latest(home)
    with duckdb.connect(config={"threads": 2, "memory_limit": "512MB"}) as connection:
        connection.execute(f"ATTACH {literal(run.database)} AS run (READ_ONLY)")
        connection.execute("SUMMARIZE run.sample_scores").fetchall()


def report(home: Path) -> None:
    made = document.report("latest", home)
    page.write(home / "report.html", made)
    assert made.funnel.steps[-1].left == made.counts.kept, made.counts


STAGES = {"report": report, "summarize": summarize}


def in_this_process(stage: str, home: Path) -> None:
    with timed() as took:
        STAGES[stage](home)
    print(json.dumps({"cpu": took.processor, "wall": took.wall, "peak": peak_mib()}))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tokens", type=int, default=8, help="response tokens of a row, on average")
    parser.add_argument("--folder", type=Path, help="where the run is made, and found again when it is there")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.stage:
        in_this_process(given.stage, given.folder)
        return
    with tempfile.TemporaryDirectory() as fresh:
        home = (given.folder or Path(fresh)) / str(given.rows)
        if not home.is_dir():
            million.build(home, given.rows, given.tokens)
            million.whole_run(home)
        found, plain = (alone("report", "--stage", stage, "--folder", str(home)) for stage in STAGES)
    print(f"{given.rows:,} rows: {found['wall']:.1f} s, peak {found['peak']:,.0f} MiB")
    against = "DuckDB's SUMMARIZE of the same scores"
    figure("report, processor", found["cpu"], against=against, baseline=plain["cpu"])
    figure("report, peak memory", found["peak"], against=against, baseline=plain["peak"], unit="MiB")


if __name__ == "__main__":
    main()
