"""Every selector over 100,000 cached rows: seconds and peak memory of scores and selection.

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
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.selection import synthetic_signals  # noqa: E402
from scorers.methods import registry  # noqa: E402
from scorers.signals.columns import VECTOR_SIGNALS, Signals, needs_by_view  # noqa: E402

WIDTH, PROJECTION, TARGETS, TOKENS_PER_ROW, COMPARED, SEED = 576, 512, 1000, 60, 1000, 0
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "divprune": {
        "outermost first": {"first": "outermost"},
        "outermost first, 10 parts": {"first": "outermost", "parts": 10},
    },
}
"""Method -> what the line says -> options, beside the defaults."""


def cases() -> dict[str, tuple[str, dict[str, Any]]]:
    """What each line runs: a method and its options. Methods of sections 1 and 2 are in `selection`."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for method in registry.OWN:
        if method.name in ("qtuning", "donod"):
            continue
        found[method.name] = (method.name, {})
        for words, options in VARIANTS.get(method.name, {}).items():
            found[f"{method.name}, {words}"] = (method.name, options)
    return found


def vectors(rows: int, width: int, kind: str, seed: int) -> np.ndarray:
    """(rows, width) float32, random directions or clusters of falling variance around a common offset."""
    rng = np.random.default_rng(seed)
    if kind == "random":
        return rng.standard_normal((rows, width), dtype=np.float32)
    spread = (np.arange(1, width + 1) ** -0.5).astype(np.float32)
    centres = rng.standard_normal((max(1, rows // 200), width), dtype=np.float32)
    found = centres[rng.integers(0, len(centres), rows)]
    for start in range(0, rows, 10_000):  # in pieces: the temporaries must not set the peak
        part = found[start : start + 10_000]
        part += rng.standard_normal(part.shape, dtype=np.float32)
        part *= spread
        part += np.float32(0.1)
    return found


def signals_for(needs: frozenset[str], rows: int, kind: str) -> Signals:
    """Synthetic signals with all that is needed, views included."""
    whole = synthetic_signals(rows, TOKENS_PER_ROW)
    made = {}
    for number, (view, names) in enumerate(sorted(needs_by_view(needs).items())):
        base = synthetic_signals(TARGETS, TOKENS_PER_ROW) if view == "target" else whole
        rng = np.random.default_rng(number)
        n, m = len(base), int(base.offsets[-1])
        samples, tokens, found = dict(base.samples), dict(base.tokens), {}
        for name in names:
            if name in VECTOR_SIGNALS:
                width = PROJECTION if name == "head_grad_projection" else WIDTH
                found[name] = vectors(n, width, kind, number)
            elif name.startswith("token:") and (view or name.removeprefix("token:") not in tokens):
                tokens[name.removeprefix("token:")] = rng.standard_exponential(m, dtype=np.float32)
            elif not name.startswith("token:") and (view or name not in samples):
                samples[name] = rng.lognormal(0, 1, n)
        made[view] = replace(base, samples=samples, tokens=tokens, vectors=found)
    return replace(made.pop(""), others=made)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(case: str, rows: int, share: float, kind: str) -> None:
    """In a process of its own: run one case, print its figures as JSON."""
    name, given = cases()[case]
    method = registry.get(name)
    options = method.options(**given)
    signals = signals_for(method.needs(options), rows, kind)
    before = peak_mib()
    start, cpu = time.perf_counter(), time.process_time()
    selection = method.select(signals, method.scores(signals, options, SEED), share, options, SEED)
    seconds, cpu, peak = time.perf_counter() - start, time.process_time() - cpu, peak_mib()
    compared = vectors(rows, WIDTH, "random", SEED)
    compared[:COMPARED] @ compared.T  # the library starts its threads
    start = time.process_time()
    compared[:COMPARED] @ compared.T
    product = time.process_time() - start
    figures = {"seconds": seconds, "cpu": cpu, "product": product, "signals": before, "peak": peak}
    print(json.dumps(figures | {"kept": int(selection.keep.sum())}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--vectors", choices=("random", "clustered"), default="random")
    parser.add_argument("--only", nargs="*", default=None, help="methods or lines to run")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        measure(given.case, given.rows, given.share, given.vectors)
        return
    print(f"{given.rows:,} rows, share {given.share}, {given.vectors} vectors\n")
    print("| selector | seconds | CPU seconds | against the product | kept | peak MiB | of that signals |")
    print("|---|--:|--:|--:|--:|--:|--:|", flush=True)
    for case, (name, _) in cases().items():
        if given.only is not None and not {case, name} & set(given.only):
            continue
        command = [sys.executable, sys.argv[0], f"--case={case}", f"--rows={given.rows}"]
        command += [f"--share={given.share}", f"--vectors={given.vectors}"]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(
            f"| {case} | {found['seconds']:.2f} | {found['cpu']:.2f} | "
            f"{found['cpu'] / found['product']:.1f} | "
            f"{found['kept']:,} | {found['peak']:.0f} | {found['signals']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
