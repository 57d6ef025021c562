"""DEALRec's Games sequences become instructions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl

SCRIPT = Path(__file__).parents[2] / "examples" / "games.py"


def test_the_last_title_is_the_answer_to_those_before(tmp_path: Path) -> None:
    pl.DataFrame({"user": [1, 2, 3], "items": [[1, 2, 3], [3], [2, 1]]}).write_parquet(
        tmp_path / "train.parquet"
    )
    pl.DataFrame({"item": [1, 2, 3], "title": ["Chess", "Go\nfor two", "Halma"]}).write_parquet(
        tmp_path / "titles.parquet"
    )
    files = [tmp_path / name for name in ("train.parquet", "titles.parquet", "games.jsonl")]
    done = subprocess.run([sys.executable, SCRIPT, *files], check=True, capture_output=True, text=True)
    assert "2 of 3 users written; 1 have fewer than two items" in done.stdout
    rows = [json.loads(line) for line in files[-1].read_text().splitlines()]
    assert [(row["user"], row["output"]) for row in rows] == [(1, "Halma"), (3, "Chess")]
    assert rows[0]["input"].endswith("titles as: Chess; Go for two;")
