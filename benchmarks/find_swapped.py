"""How well each score finds answers that belong to another question.

    python -m benchmarks.find_swapped [--data rows.parquet] [--rows 400] [--share 0.2] [--seed 0]

Takes alpaca-like rows, swaps the responses of a share of them among each other, measures with the
proxy model and prints, for every score column, the AUC of telling a swapped row from an untouched one (above
0.5: swapped rows score higher) and how many of the swapped rows each method would drop.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

import datapruner
from benchmarks.figures import figure
from benchmarks.rows import EXAMPLES, read_frame

METHODS = ("qtuning", "donod", "ppl", "el2n", "length", "random")
COLUMNS = (
    "ppl",
    "entropy",
    "el2n",
    "head_grad_norm",
    "head_grad_dot",
    "don",
    "nod",
    "donod",
    "length",
    "random",
)


def swapped_rows(path: Path, count: int, share: float, seed: int) -> tuple[pl.DataFrame, np.ndarray]:
    """`count` rows of a file, and which of them got the response of the next chosen one (N,)."""
    frame = read_frame(path).filter(pl.col("output").str.strip_chars().str.len_chars() > 0)
    frame = frame.sample(count, seed=seed, shuffle=True)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(count, round(share * count), replace=False)
    outputs = frame["output"].to_list()
    for row, other in zip(chosen, np.roll(chosen, 1), strict=True):
        outputs[row] = frame["output"][int(other)]
    is_swapped = np.zeros(count, dtype=np.bool_)
    is_swapped[chosen] = True
    is_swapped &= np.array(outputs) != frame["output"].to_numpy()
    return frame.with_columns(output=pl.Series(outputs)), is_swapped


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=EXAMPLES, help="Alpaca-like rows")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    rows, is_swapped = swapped_rows(arguments.data, arguments.rows, arguments.share, arguments.seed)
    scores = datapruner.score(rows, METHODS, model=arguments.model).scores.filter(
        pl.col("status") == "scored"
    )
    truth = is_swapped[scores["row"].to_numpy()]
    plane = scores["ppl"].rank() + scores["entropy"].rank()
    print(f"{len(truth)} rows of {arguments.data.name}, {truth.sum()} with a response from another row")
    console = Console()
    columns = {name: scores[name] for name in COLUMNS} | {"qtuning plane: rank(ppl) + rank(entropy)": plane}
    for name, column in columns.items():
        auc = roc_auc_score(truth, column.to_numpy())
        figure(name, auc, against="chance", baseline=0.5, unit="AUC")
    table = Table("method", f"swapped rows dropped at keep {arguments.keep:g}", "other rows dropped")
    for method in METHODS:
        kept = datapruner.prune(rows, method, keep=arguments.keep, model=arguments.model).scores.filter(
            pl.col("sample_id").is_not_null()
        )
        dropped, bad = ~kept["keep"].to_numpy().astype(bool), is_swapped[kept["row"].to_numpy()]
        table.add_row(method, f"{dropped[bad].mean():.0%}", f"{dropped[~bad].mean():.0%}")
    console.print(table)


if __name__ == "__main__":
    main()
