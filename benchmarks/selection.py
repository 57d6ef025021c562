"""Scores and selection over cached signals: seconds per method, and peak memory of a million samples.

    python -m benchmarks.selection [--rows 50000] [--tokens-per-row 60] [--memory-rows 1000000]

Signals are made up; the methods are those that read no vectors and compare with nothing else (`methods` has
the others). The baseline is a stable `numpy.argsort` of one float64 column of the same rows, and for memory
2 GB: the peak is that of a process of its own that holds the signals and runs every method.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.figures import figure
from benchmarks.processes import alone, in_turns, peak_mib
from benchmarks.synthetic import signals_for
from scorers.method import Method
from scorers.methods import registry
from scorers.methods.qtuning import QTuningOptions
from scorers.signals.columns import VECTOR_SIGNALS, Signals, needs_by_view

SHARE, SEED = 0.25, 0
BASELINE = "numpy argsort"
QTUNING = registry.get("qtuning")


def is_plain(needs: frozenset[str]) -> bool:
    """Whether these are samples' and tokens' numbers of the corpus alone."""
    return set(needs_by_view(needs)) == {""} and not needs & set(VECTOR_SIGNALS)


def cases() -> dict[str, tuple[Method[Any], Any]]:
    """Every plain method with its defaults, and Q-Tuning by batch."""
    with_defaults = {method.name: (method, method.options()) for method in registry.OWN}
    plain = {name: case for name, case in with_defaults.items() if is_plain(case[0].needs(case[1]))}
    return plain | {"qtuning, batches of 128": (QTUNING, QTuningOptions(scope="batch"))}


def synthetic(rows: int, tokens_per_row: int) -> Signals:
    needs = (method.needs(options) for method, options in cases().values())
    return signals_for(frozenset[str]().union(*needs) | {"nll"}, rows, tokens_per_row)


def runs(signals: Signals) -> dict[str, Callable[[], object]]:
    """What each line runs."""

    def score_and_select(method: Method[Any], options: Any) -> object:
        return method.select(signals, method.scores(signals, options, SEED), SHARE, options, SEED)

    found: dict[str, Callable[[], object]] = {
        name: partial(score_and_select, *case) for name, case in cases().items()
    }
    return found | {"qtuning token scores": lambda: QTUNING.token_scores(signals, QTuningOptions())}


def measure_memory(rows: int, tokens_per_row: int) -> None:
    """In a process of its own: run everything once, print the peaks in MiB as JSON."""
    signals = synthetic(rows, tokens_per_row)
    peaks = {"signals alone": peak_mib()}
    for name, run in runs(signals).items():
        run()
        peaks[name] = peak_mib()
    print(json.dumps(peaks))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--tokens-per-row", type=int, default=60)
    parser.add_argument("--memory-rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--measure-memory", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.measure_memory:
        measure_memory(given.rows, given.tokens_per_row)
        return
    signals = synthetic(given.rows, given.tokens_per_row)
    print(f"{given.rows:,} samples, {signals.offsets[-1]:,} response tokens, share {SHARE}")
    sort = {BASELINE: lambda: np.argsort(signals.samples["nll"], kind="stable")}
    took = in_turns(sort | runs(signals), given.repeats)
    baseline = took.pop(BASELINE).wall
    for name, each in took.items():
        figure(name, each.wall, against=BASELINE, baseline=baseline)
    of_memory = (f"--rows={given.memory_rows}", f"--tokens-per-row={given.tokens_per_row}")
    peaks = alone("selection", "--measure-memory", *of_memory)
    print(f"peak MiB, one after another in one process: {peaks}")
    what = f"peak memory of all, {given.memory_rows:,} samples"
    figure(what, max(peaks.values()), against="2 GB", baseline=2e9 / 2**20, unit="MiB", at_most=1)


if __name__ == "__main__":
    main()
