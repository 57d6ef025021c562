"""All benchmarks that need no GPU, or those that are named, and one table of their figures.

python -m benchmarks [SCRIPT ...] [--seconds 900]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.runs import OUT, Job, run_all
from benchmarks.sizes import SCRIPTS


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = [script for script, sizes in SCRIPTS.items() if sizes.bench is not None]
    parser.add_argument("scripts", nargs="*", default=usual, metavar="SCRIPT")
    parser.add_argument("--seconds", type=float, default=900, help="for all of them")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(argv)
    jobs = [Job(script, tuple((SCRIPTS[script].bench or "").split())) for script in given.scripts]
    return run_all(jobs, given.out, given.seconds)


if __name__ == "__main__":
    raise SystemExit(main())
