"""Another keep ratio or method on cached signals: what it costs when nothing has to be measured.

    python -m benchmarks.reprune [--rows 50000] [--tokens 60]

Writes made-up signals of real shape into a fresh home folder, then prunes from them. "select" is what the
proxy model is spared: read signals, score, mask. "whole run" is `run_on`: also look up what is measured,
write every score and token table, and account for every row. The baseline is polars reading and sorting the
same score columns from the same files. No worker is started; torch is never imported.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks.figures import figure
from benchmarks.processes import peak_mib
from datapruner.corpora import store
from datapruner.corpora.corpus import Corpus
from datapruner.home import home_folder
from datapruner.measuring import vectors
from datapruner.measuring.measure import Machine, proxy_for
from datapruner.measuring.signal_cache import SignalCache, shard_name
from datapruner.measuring.workers import shards
from datapruner.progress import Silent
from datapruner.request.config import Measuring, MethodChoice, RunConfig
from datapruner.request.keep import parse_keep
from datapruner.request.needs import needs
from datapruner.runs import pipeline
from datapruner.runs.selection import score
from datapruner.runs.tables import SCALARS

SHARD_ROWS = 256
BASELINE = "polars reading and sorting the score columns"
CHOICES: tuple[tuple[str, float], ...] = (
    ("qtuning", 0.25),
    ("qtuning", 0.5),
    ("donod", 0.3),
    ("random", 0.1),
)


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
    for name, k in zip(("head_grad_projection", "mean_hidden"), width, strict=True):
        columns[name] = vectors.pack(rng.normal(0, 1, (n, k)).astype(np.float32), k)
    return pa.Table.from_arrays([columns[field.name] for field in shape], schema=shape)


def build(home: Path, rows: int, tokens: int, with_vectors: bool) -> tuple[Path, SignalCache]:
    """A corpus of made-up rows, and signals for all of them."""
    (home / "models").symlink_to(home_folder() / "models")
    made = (
        {"instruction": f"question {i}", "input": "", "output": f"answer number {i}"} for i in range(rows)
    )
    path = store.ingest_to(made, {}, home, Silent())
    cache = SignalCache(home, proxy_for(Measuring(), home, ("cpu",)).key)
    cache.create()
    with Corpus(path) as corpus:
        ids = corpus.sample_index()["sample_id"].to_list()
    rng = np.random.default_rng(0)
    for start in range(0, rows, SHARD_ROWS):
        part = ids[start : start + SHARD_ROWS]
        table = made_up_shard(part, tokens, rng, with_vectors)
        shards.publish(cache.folder / shard_name(part), table)
    return path, cache


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--tokens", type=int, default=60, help="response tokens of a row, on average")
    parser.add_argument("--narrow", action="store_true", help="short vectors, to save disk with many rows")
    arguments = parser.parse_args(argv)
    imported = "torch" in sys.modules
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        path, cache = build(home, arguments.rows, arguments.tokens, not arguments.narrow)
        print(f"{arguments.rows:,} rows, about {arguments.rows * arguments.tokens:,} response tokens")
        started = time.perf_counter()
        columns = ["sample_id", "nll_mean", "entropy_mean", "el2n_mean", "head_grad_norm", "head_grad_dot"]
        pl.read_parquet(cache.shards(), columns=columns).sort("nll_mean")
        baseline = time.perf_counter() - started
        with Corpus(path) as corpus:
            ids = corpus.sample_index()["sample_id"].to_list()
            for name, keep in CHOICES:
                config = RunConfig(methods=[MethodChoice.of(name, {})[0]], keep=parse_keep(keep))
                started = time.perf_counter()
                signals = cache.signals(ids, needs(config.methods) | SCALARS)
                score(signals, config.methods, config.keep, config.seed)
                seconds = time.perf_counter() - started
                del signals
                figure(f"{name} at {keep:g}: select", seconds, against=BASELINE, baseline=baseline)
                started = time.perf_counter()
                run = pipeline.run_on(corpus, config, home, Machine(("cpu",)), Silent())
                seconds = time.perf_counter() - started
                figure(f"{name} at {keep:g}: whole run", seconds, against=BASELINE, baseline=baseline)
                assert run.measured == 0, f"{run.measured} samples were measured; all should be cached"
        assert imported or "torch" not in sys.modules, "pruning from cached signals must not import torch"
        print(f"peak memory of this process: {peak_mib():,.0f} MiB")


if __name__ == "__main__":
    main()
