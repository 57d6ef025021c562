"""Show what became of the planted defects: run after `datapruner prune examples/instructions.jsonl`.

python examples/show_defects.py demo-output/subset.parquet
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from rich.table import Table
from sklearn.metrics import roc_auc_score

from datapruner.commands import display
from datapruner.home import home_folder
from datapruner.result import Result
from datapruner.runs import published

ROWS = Path(__file__).with_name("instructions.jsonl")
LABELS = ("", "wrong_answer", "other_question", "truncated", "duplicate", "empty")
SIGNALS = ("ppl", "entropy", "el2n", "head_grad_norm")


def outcomes(subset: Path) -> pl.DataFrame:
    """One line per example row: its planted label and what the run said of it."""
    document = json.loads(pq.read_schema(subset).metadata[b"datapruner"])
    home = home_folder()
    scores = Result(published.load(document["run"], home), home).scores
    planted = pl.DataFrame({"planted": [json.loads(line)["planted"] for line in ROWS.open(encoding="utf-8")]})
    return planted.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64)).join(scores, on="row")


def show(rows: pl.DataFrame) -> None:
    """Print label by outcome, and how well each score alone tells a defect from a clean row."""
    table = Table(title="Planted defects and what became of them", title_justify="left")
    table.add_column("planted")
    for name in ("rows", "rejected", "duplicate", "pruned", "kept, tokens cut", "kept whole"):
        table.add_column(name, justify="right")
    for label in LABELS:
        part = rows.filter(pl.col("planted") == label)
        copies = part["reason"].str.starts_with("exact duplicate").sum()
        kept = part.filter(pl.col("status") == "kept")
        cut = kept.filter(pl.col("n_kept_tokens") < pl.col("n_response_tokens"))
        counts = (
            len(part),
            part.filter(pl.col("status") == "rejected").height,
            copies,
            part.filter(pl.col("status") == "pruned").height - copies,
            cut.height,
            kept.height - cut.height,
        )
        table.add_row(label or "(clean)", *map(str, counts))
    areas = Table(title="\nAUC of each score alone: planted defect against clean rows", title_justify="left")
    areas.add_column("planted")
    for signal in SIGNALS:
        areas.add_column(signal, justify="right")
    scored = rows.filter(pl.col("status").is_in(["kept", "pruned"]) & pl.col("ppl").is_not_null())
    for label in LABELS[1:4]:
        part = scored.filter(pl.col("planted").is_in(["", label]))
        truth = (part["planted"] == label).to_numpy()
        found = (roc_auc_score(truth, np.asarray(part[signal])) for signal in SIGNALS)
        areas.add_row(label, *(f"{area:.2f}" for area in found))
    console = display.console(sys.stdout)
    console.print(table)
    console.print(areas)


if __name__ == "__main__":
    show(outcomes(Path(sys.argv[1])))
