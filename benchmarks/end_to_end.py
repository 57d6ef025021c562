"""Seconds from the command line to a written subset, against the bare backbone's over the same rows.

    python -m benchmarks.end_to_end [--device cuda] [--rows 52002] [--data rows.parquet]

Each command runs in turn over a fresh home folder: the first measures every row, the second asks for a method
that reads the responses without their prompts besides. The backbone's seconds are those of a sixteenth of the
rows, times sixteen.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import orjson

from benchmarks.figures import figure
from benchmarks.processes import in_turns, timed
from benchmarks.rows import rows_of
from datapruner.home import home_folder

SHARE = 16
BARE = "the bare backbone"


def prune(rows: Path, method: str, home: Path, model: str, device: str) -> float:
    """Wall seconds of the command."""
    out = rows.with_name(f"{method}.parquet")
    command = [sys.executable, "-m", "datapruner", "prune", str(rows), "--method", method, "--keep", "0.25"]
    command += ["--model", model, "--device", device, "--out", str(out), "--quiet"]
    with timed() as took:
        subprocess.run(command, check=True, env=os.environ | {"DATAPRUNER_HOME": str(home)})
    assert out.exists()
    return took.wall


def backbone_seconds(rows: list[dict[str, object]], model: str, device: str) -> float:
    """Of the bare backbone over these rows, at the token budget that measuring uses."""
    from benchmarks.device import bare, waiting_for
    from benchmarks.forward import encode
    from scorers.models.proxy import load
    from scorers.models.sources import resolve
    from scorers.signals.forward import ForwardPass

    proxy = load(resolve(model, home_folder()).path, device=device)
    samples, budget = encode(proxy, rows), ForwardPass(proxy).token_budget
    bare(proxy, samples, budget)
    return in_turns({BARE: lambda: bare(proxy, samples, budget)}, 1, waiting_for(proxy.device))[BARE].wall


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=None, help="rows to read (default: Alpaca-like ones)")
    parser.add_argument("--rows", type=int, default=52_002)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--methods", nargs="+", default=("qtuning", "ifd"), help="one after another")
    given = parser.parse_args(argv)
    rows = rows_of(given.data, given.rows)
    with tempfile.TemporaryDirectory() as folder:
        home, file = Path(folder, "home"), Path(folder, "rows.jsonl")
        home.mkdir()
        (home / "models").symlink_to(home_folder() / "models")
        file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        bare = SHARE * backbone_seconds(rows[::SHARE], given.model, given.device)
        for method in given.methods:
            seconds = prune(file, method, home, given.model, given.device)
            figure(f"{method}, {len(rows):,} rows, command to subset", seconds, against=BARE, baseline=bare)


if __name__ == "__main__":
    main()
