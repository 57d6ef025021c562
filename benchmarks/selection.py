"""Scores and selection over cached signals: seconds per method, ratios, and peak memory of a million samples.

    python benchmarks/selection.py [--rows 50000] [--tokens-per-row 60] [--memory-rows 1000000]

Signals are synthetic: losses and entropies heavy-tailed, response lengths spread around the mean. The
baseline of every ratio is a stable `numpy.argsort` of one float64 column of the same rows, in the same run.
Memory is the peak resident size of a process of its own that holds the signals and runs every method.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from scorers.method import Method  # noqa: E402
from scorers.methods.qtuning import QTuningOptions  # noqa: E402
from scorers.methods.registry import OWN  # noqa: E402
from scorers.signals.columns import Signals  # noqa: E402

SHARE, SEED, REPEATS = 0.25, 0, 5


def synthetic_signals(rows: int, tokens_per_row: int) -> Signals:
    """`rows` single-turn samples with as many response tokens on average, an end token last."""
    rng = np.random.default_rng(SEED)
    lengths = np.clip(rng.lognormal(0, 0.6, rows) * tokens_per_row / 1.2, 1, 40 * tokens_per_row).astype(
        np.int64
    )
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    m, prompt = int(offsets[-1]), 40
    position, is_end = np.empty(m, dtype=np.int32), np.zeros(m, dtype=np.bool_)
    for first in range(0, rows, 10_000):  # in pieces: the temporaries must not set the peak
        last = min(first + 10_000, rows)
        flat = np.arange(offsets[first], offsets[last])
        position[flat[0] : flat[-1] + 1] = flat - np.repeat(offsets[first:last], lengths[first:last]) + prompt
    is_end[offsets[1:] - 1] = True
    grad_norm = rng.lognormal(2, 1, rows)
    return Signals(
        ids=np.array([f"{i:032x}" for i in rng.permutation(rows)], dtype=np.str_),
        samples={
            "n_tokens": lengths + prompt,
            "n_response_tokens": lengths,
            "nll": rng.lognormal(0, 0.7, rows),
            "entropy": rng.lognormal(0, 0.5, rows),
            "el2n": rng.uniform(0, 2**0.5, rows),
            "head_grad_norm": grad_norm,
            "head_grad_dot": rng.normal(0, 1, rows),
            "head_norm": np.full(rows, 100.0),
        },
        tokens={
            "position": position,
            "nll": rng.standard_exponential(m, dtype=np.float32),
            "is_end": is_end,
        },
        offsets=offsets,
    )


def cases() -> list[tuple[str, Method[Any], Any]]:
    """Every method with its defaults, and Q-Tuning by batch."""
    with_defaults = [(method.name, method, method.options()) for method in OWN]
    return [*with_defaults, ("qtuning, batches of 128", OWN[0], QTuningOptions(scope="batch"))]


def best(task: Callable[[], object]) -> float:
    """Least seconds of a few runs."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        task()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def score_and_select(signals: Signals, method: Method[Any], options: Any) -> object:
    return method.select(signals, method.scores(signals, options, SEED), SHARE, options, SEED)


def print_times(rows: int, tokens_per_row: int) -> None:
    signals = synthetic_signals(rows, tokens_per_row)
    sort = best(lambda: np.argsort(signals.samples["nll"], kind="stable"))
    print(f"{rows:,} samples, {signals.offsets[-1]:,} response tokens, share {SHARE}, best of {REPEATS}\n")
    print(
        f"| {'scores + select':<24} | seconds | ratio to argsort |\n|{'-' * 26}|--------:|-----------------:|"
    )
    print(f"| {'numpy argsort (baseline)':<24} | {sort:7.4f} | {1:16.1f} |")
    for name, method, options in cases():
        seconds = best(partial(score_and_select, signals, method, options))
        print(f"| {name:<24} | {seconds:7.4f} | {seconds / sort:16.1f} |")
    seconds = best(lambda: OWN[0].token_scores(signals, QTuningOptions()))
    print(f"| {'qtuning token scores':<24} | {seconds:7.4f} | {seconds / sort:16.1f} |")


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_memory(rows: int, tokens_per_row: int) -> None:
    """In a process of its own: run everything once, print the peaks as JSON."""
    signals = synthetic_signals(rows, tokens_per_row)
    peaks, seconds = {"signals alone": peak_mib()}, {}
    for name, method, options in cases():
        start = time.perf_counter()
        score_and_select(signals, method, options)
        seconds[name], peaks[name] = time.perf_counter() - start, peak_mib()
    start = time.perf_counter()
    OWN[0].token_scores(signals, QTuningOptions())
    seconds["qtuning token scores"] = time.perf_counter() - start
    peaks["qtuning token scores"] = peak_mib()
    print(json.dumps({"tokens": int(signals.offsets[-1]), "peaks": peaks, "seconds": seconds}))


def print_memory(rows: int, tokens_per_row: int) -> None:
    command = [sys.executable, __file__, "--measure-memory", f"--memory-rows={rows}"]
    command.append(f"--tokens-per-row={tokens_per_row}")
    measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"\n{rows:,} samples, {measured['tokens']:,} response tokens, in one process, one after another\n")
    print(f"| {'after':<24} | peak MiB | seconds |\n|{'-' * 26}|---------:|--------:|")
    for name, peak in measured["peaks"].items():
        print(f"| {name:<24} | {peak:8.0f} | {measured['seconds'].get(name, 0):7.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--tokens-per-row", type=int, default=60)
    parser.add_argument("--memory-rows", type=int, default=1_000_000)
    parser.add_argument("--measure-memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure_memory:
        measure_memory(arguments.memory_rows, arguments.tokens_per_row)
        return
    print_times(arguments.rows, arguments.tokens_per_row)
    print_memory(arguments.memory_rows, arguments.tokens_per_row)


if __name__ == "__main__":
    main()
