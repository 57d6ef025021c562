"""What is to be known of a GPU, most important first, within four minutes and without a network.

python -m benchmarks.gpu [--data rows.parquet] [--device cuda] [--small]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.runs import OUT, Job, run_all

JOBS = (
    "device --dtype bfloat16 --large 1024",
    "parity --dtype float32",
    "parity --dtype bfloat16",
    "end_to_end",
    "device --dtype float32 --budgets 16384 --repeats 1",
)
SMALL = {
    "device": "--rows 8 --budgets 512 --repeats 1 --large 2 --small",
    "parity": "--families llama-tied",
    "end_to_end": "--rows 8",
}
"""What each is given besides, to try this where there is no GPU."""


def jobs(device: str, data: Path | None, small: bool) -> list[Job]:
    found = []
    for line in JOBS:
        script, *arguments = line.split()
        arguments += ["--device", device]
        if data is not None and script != "parity":
            arguments += ["--data", str(data)]
        found.append(Job(script, (*arguments, *(SMALL[script].split() if small else ()))))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=None, help="rows to read (default: Alpaca-like ones)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a few rows, to try the scripts")
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--out", type=Path, default=OUT.with_name("benchmarks-gpu"))
    given = parser.parse_args(argv)
    data = None if given.data is None else given.data.resolve()
    return run_all(jobs(given.device, data, given.small), given.out, given.seconds)


if __name__ == "__main__":
    raise SystemExit(main())
