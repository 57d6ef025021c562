"""The rows that benchmarks read: the example corpus, unless a file is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.processes import ROOT

EXAMPLES = ROOT / "examples" / "instructions.jsonl"


def read_frame(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ndjson(path)


def read_rows(path: Path, count: int) -> list[dict[str, Any]]:
    """`count` rows, evenly spread over the file."""
    frame = read_frame(path)
    return frame.gather_every(max(1, len(frame) // count)).head(count).to_dicts()
