"""Every selector that reads vectors or compares, over 100,000 cached rows: seconds and peak memory.

    python -m benchmarks.methods [--rows 100000] [--share 0.25] [--vectors random] [--only NAME ...]

Signals are synthetic, vectors as wide as SmolLM2-135M's hidden states. Random vectors are the worst case of
everything that compares samples: all are about equally far apart. Clustered ones are offset and of falling
variance, as hidden states are. The baseline of every ratio is one matrix product that compares each sample
with 1,000 others, in the same process. Each selector runs in a process of its own, signals included in its
peak memory. CPU seconds are those of all threads; ratios are of them, for other load disturbs them less.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.figures import figure
from benchmarks.processes import alone, peak_mib
from benchmarks.selection import is_plain
from benchmarks.synthetic import WIDTH, signals_for, vectors_of
from scorers.methods import registry

TOKENS_PER_ROW, COMPARED, SEED = 60, 1000, 0
BASELINE = f"a product of all vectors with {COMPARED:,} of them"
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "divprune": {
        "outermost first": {"first": "outermost"},
        "outermost first, 10 parts": {"first": "outermost", "parts": 10},
    },
}
"""Method -> what the line says -> options, beside the defaults."""


def cases() -> dict[str, tuple[str, dict[str, Any]]]:
    """What each line runs: a method and its options. Plain ones are in `selection`."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for method in registry.OWN:
        if is_plain(method.needs(method.options())):
            continue
        found[method.name] = (method.name, {})
        for words, options in VARIANTS.get(method.name, {}).items():
            found[f"{method.name}, {words}"] = (method.name, options)
    return found


def measure(case: str, rows: int, share: float, kind: str) -> None:
    """In a process of its own: run one case, print its figures as JSON."""
    name, given = cases()[case]
    method = registry.get(name)
    options = method.options(**given)
    signals = signals_for(method.needs(options), rows, TOKENS_PER_ROW, kind)
    before = peak_mib()
    start, cpu = time.perf_counter(), time.process_time()
    selection = method.select(signals, method.scores(signals, options, SEED), share, options, SEED)
    seconds, cpu, peak = time.perf_counter() - start, time.process_time() - cpu, peak_mib()
    compared = vectors_of(rows, WIDTH, "random", SEED)
    compared[:COMPARED] @ compared.T  # the library starts its threads
    start = time.process_time()
    compared[:COMPARED] @ compared.T
    product = time.process_time() - start
    figures = {"seconds": seconds, "cpu": cpu, "product": product, "signals": before, "peak": peak}
    print(json.dumps(figures | {"kept": int(selection.keep.sum())}))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--vectors", choices=("random", "clustered"), default="random")
    parser.add_argument("--only", nargs="*", default=None, help="methods or lines to run")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.case:
        measure(given.case, given.rows, given.share, given.vectors)
        return
    print(f"{given.rows:,} rows, share {given.share}, {given.vectors} vectors")
    sizes = (f"--rows={given.rows}", f"--share={given.share}", f"--vectors={given.vectors}")
    for case, (name, _) in cases().items():
        if given.only is not None and not {case, name} & set(given.only):
            continue
        found = alone("methods", f"--case={case}", *sizes)
        figure(case, found["cpu"], against=BASELINE, baseline=found["product"], unit="processor s")
        print(
            f"    {found['seconds']:.2f} s, kept {found['kept']:,}, peak {found['peak']:.0f} MiB, "
            f"of that signals {found['signals']:.0f}"
        )


if __name__ == "__main__":
    main()
