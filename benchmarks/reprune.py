"""Another keep ratio or method on cached signals, from the shell: the cost when nothing is to be measured.

    python -m benchmarks.reprune [--rows 50000] [--tokens 60] [--repeats 3] [--methods qtuning donod random]

Writes made-up rows and signals of real shape into a fresh home folder and ingests them, then runs the whole
command, start included, with every table and the subset written. The baseline is a process that reads and
sorts the same score columns from the same files by polars. Commands and baseline take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.figures import figure
from benchmarks.processes import ROOT, in_turns
from datapruner.corpora import store
from datapruner.corpora.corpus import Corpus
from datapruner.home import home_folder
from datapruner.measuring import vectors
from datapruner.measuring.measure import proxy_for
from datapruner.measuring.signal_cache import SignalCache, shard_name
from datapruner.measuring.workers import shards
from datapruner.progress import Silent
from datapruner.request.config import Measuring

SHARD_ROWS = 256
BASELINE = "polars reading and sorting the score columns in a process"
_BASELINE = """
import pathlib, polars, sys
columns = ["sample_id", "nll_mean", "entropy_mean", "el2n_mean", "head_grad_norm", "head_grad_dot"]
polars.read_parquet(sorted(pathlib.Path(sys.argv[1]).glob("*.parquet")), columns=columns).sort("nll_mean")
"""
_WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa")


def lists(values: np.ndarray, offsets: np.ndarray) -> pa.Array:
    """Flat values as an Arrow list column."""
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values))


def made_up_shard(ids: list[str], tokens: int, rng: np.random.Generator, with_vectors: bool) -> pa.Table:
    """Signals of some samples: lengths around `tokens`, a prompt of 50 tokens before each response."""
    n = len(ids)
    lengths = rng.integers(tokens // 2, tokens * 3 // 2, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    full = np.concatenate([[0], np.cumsum(lengths + 51)])
    m = int(offsets[-1])
    is_end = np.zeros(m, dtype=np.bool_)
    is_end[offsets[1:] - 1] = True
    width = (512, 576) if with_vectors else (8, 8)
    shape = shards.schema(*width)
    columns: dict[str, Any] = {
        "sample_id": pa.array(ids),
        "error": pa.nulls(n, pa.string()),
        "input_ids": lists(rng.integers(0, 49152, full[-1]).astype(np.int32), full),
        "position": lists((within + 50).astype(np.int32), offsets),
        "turn": lists(np.ones(m, np.int32), offsets),
        "char_start": lists((within * 4).astype(np.int32), offsets),
        "char_end": lists((within * 4 + 4).astype(np.int32), offsets),
        "is_end": lists(is_end, offsets),
        "top1": lists(rng.random(m) < 0.5, offsets),
    }
    columns |= {
        name: lists(rng.gamma(1, 1.5, m).astype(np.float32), offsets) for name in ("nll", "entropy", "el2n")
    }
    counts = {"n_tokens": lengths + 51, "n_prompt_tokens": np.full(n, 51), "n_response_tokens": lengths}
    counts |= {"n_truncated": np.zeros(n, np.int64), "n_tokens_full": lengths + 51}
    columns |= {name: pa.array(values) for name, values in counts.items()}
    columns |= {f"{name}_mean": pa.array(rng.gamma(4, 0.4, n)) for name in ("nll", "entropy", "el2n")}
    columns |= {
        "head_grad_norm": pa.array(rng.gamma(4, 2, n)),
        "head_grad_dot": pa.array(rng.normal(0, 1, n)),
    }
    columns |= {"head_norm": pa.array(np.full(n, 700.0))}
    columns |= {name: pa.nulls(n, pa.float64()) for name in ("tied_grad_norm", "tied_grad_dot")}
    for name, k in zip(
        ("head_grad_projection", "mean_hidden", "weighted_hidden"), (*width, width[1]), strict=True
    ):
        columns[name] = vectors.pack(rng.normal(0, 1, (n, k)).astype(np.float32), k)
    return pa.Table.from_arrays([columns[field.name] for field in shape], schema=shape)


def write_rows(path: Path, rows: int, tokens: int, *, first: int = 0) -> Path:
    """A JSON lines file of Alpaca-like rows with about `tokens` words in an answer, each row different."""
    rng = np.random.default_rng(first)
    with path.open("w", encoding="utf-8") as file:
        for number in range(first, first + rows):
            words = " ".join(_WORDS[at] for at in rng.integers(0, len(_WORDS), tokens))
            row = {"instruction": f"question {number}", "input": "", "output": f"{words} {number}"}
            file.write(json.dumps(row) + "\n")
    return path


def made_up_signals(home: Path, corpus: Path, tokens: int, *, with_vectors: bool) -> SignalCache:
    """Signals in the cache for the samples of a corpus that have none there."""
    cache = SignalCache(home, proxy_for(Measuring(), home, ("cpu",)).key)
    cache.create()
    with Corpus(corpus) as opened:
        ids = opened.sample_index()["sample_id"].to_list()
    known = set(cache.status(ids)["sample_id"]) if cache.shards() else set()
    ids = [sample_id for sample_id in ids if sample_id not in known]
    rng = np.random.default_rng(len(known))
    for start in range(0, len(ids), SHARD_ROWS):
        part = ids[start : start + SHARD_ROWS]
        shards.publish(cache.folder / shard_name(part), made_up_shard(part, tokens, rng, with_vectors))
    return cache


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--tokens", type=int, default=60, help="response tokens of a row, on average")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=["qtuning", "donod", "random"])
    parser.add_argument("--narrow", action="store_true", help="short vectors, to save disk with many rows")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        home, out = Path(folder, "home"), Path(folder, "subset.parquet")
        home.mkdir()
        (home / "models").symlink_to(home_folder() / "models")
        source = write_rows(Path(folder, "rows.jsonl"), arguments.rows, arguments.tokens)
        corpus = store.ingest_to(source, {}, home, Silent())
        cache = made_up_signals(home, corpus, arguments.tokens, with_vectors=not arguments.narrow)
        print(f"{arguments.rows:,} rows, about {arguments.rows * arguments.tokens:,} response tokens")
        environment = {**os.environ, "DATAPRUNER_HOME": str(home)}

        def run(*command: str) -> None:
            start = (sys.executable, "-P", *command)
            subprocess.run(start, check=True, env=environment | {"PYTHONPATH": str(ROOT)})

        def prune(method: str) -> None:
            options = ("--method", method, "--keep", "0.3", "--out", str(out), "--quiet")
            run("-m", "datapruner", "prune", str(source), *options)

        prune(arguments.methods[0])  # signals in many small files are merged once
        took = in_turns(
            {"": partial(run, "-c", _BASELINE, str(cache.folder))}
            | {method: partial(prune, method) for method in arguments.methods},
            arguments.repeats,
        )
        for method in arguments.methods:
            for unit, part in (("s", "wall"), ("CPU s", "processor")):
                value, baseline = getattr(took[method], part), getattr(took[""], part)
                figure(f"prune -m {method} --keep 0.3", value, against=BASELINE, baseline=baseline, unit=unit)


if __name__ == "__main__":
    main()
