"""The rows that benchmarks read: the example corpus, unless a file is given."""

from __future__ import annotations

import random
from collections.abc import Iterator
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


def alpaca_like(count: int) -> Iterator[dict[str, Any]]:
    """As many different rows, about as long as Alpaca's, made of those of the example corpus."""
    examples = read_frame(EXAMPLES).filter(pl.col("output").str.strip_chars() != "").to_dicts()
    chance = random.Random(0)
    for number in range(count):
        row, *more = chance.choices(examples, k=3)
        answer = " ".join(each["output"] for each in (row, *more))
        yield {"instruction": f"{number}. {row['instruction']}", "input": row["input"], "output": answer}


def rows_of(path: Path | None, count: int) -> list[dict[str, Any]]:
    """Those of a file, or Alpaca-like ones where none is given."""
    return list(alpaca_like(count)) if path is None else read_rows(path, count)
