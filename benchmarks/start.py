"""What it takes to start a measuring process, with a model and without, and what precision costs on a CPU.

    python -m benchmarks.start [--data rows.jsonl|.parquet] [--rows 48] [--model smollm2-135m]

Baselines: a process that imports torch and transformers and loads model and tokenizer by
`AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`; and the pass over some rows in
float32 at torch's matmul precision "highest". Times are processor seconds, medians of `--repeats` rounds in
which the variants take turns; errors are relative to float32. The peak counts what is mapped from files,
weights too, which all processes share and the system may drop; memory of its own does not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.figures import figure
from benchmarks.processes import alone, memory, timed

if TYPE_CHECKING:
    from scorers.signals.forward import Measured

PLAIN = "transformers' from_pretrained"


def plain(folder: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():  # which touches every weight: until then they are only mapped
        model(input_ids=torch.zeros(1, 1, dtype=torch.long))


KINDS = {"measuring": "worker", "tokenising": "tokeniser"}
"""Processes of ours, by the module that each runs."""


def ready(kind: str, folder: str) -> dict[str, float]:
    """Memory of a process of ours, in MiB, once it has loaded what it works with; then it ends."""
    from datapruner.measuring.workers.spec import WorkerSpec, spec_line
    from datapruner.measuring.workers.start import START
    from scorers.interpreter import PYTHON

    spec = WorkerSpec(folder, "", "float32", None, "truncate", "all", False, "cpu", None, 1)
    command = [*PYTHON, *START, KINDS[kind]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(spec_line(spec))
        process.stdin.flush()
        said = json.loads(process.stdout.readline())
        assert said == {"event": "ready"}, said
        return memory(process.pid)


def start_alone(name: str, folder: str) -> None:
    """Start one, and print what that took as JSON."""
    with timed() as took:
        if name == PLAIN:
            plain(folder)
            held = memory()
        else:
            held = ready(name, folder)
    print(json.dumps({"processor": took.processor, **held}))


def starts(folder: Path, kinds: Sequence[str], repeats: int) -> None:
    """Figures of starting, each kind in processes of its own."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in (PLAIN, *kinds)}
    for _ in range(repeats):
        for name, runs in found.items():
            runs.append(alone("start", "--alone", name, str(folder)))
    units = {"processor": "s", "peak": "MiB", "memory of its own": "MiB"}
    typical = {
        name: {what: median(run[what] for run in runs) for what in units} for name, runs in found.items()
    }
    for name in kinds:
        for what, unit in units.items():
            value, baseline = (typical[each][what] for each in (name, PLAIN))
            figure(f"start of a {name} process, {what}", value, against=PLAIN, baseline=baseline, unit=unit)


def precisions(folder: Path, data: Path | None, rows: int, repeats: int) -> None:
    """Figures of the pass in several precisions."""
    import numpy as np
    import polars as pl
    import torch

    from benchmarks.forward import encode
    from benchmarks.rows import EXAMPLES, read_rows
    from datapruner.runs.correlation import spearman
    from scorers.models.proxy import load
    from scorers.signals.forward import ForwardPass, Measured

    proxies = {dtype: load(folder, device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16")}
    samples = encode(proxies["float32"], read_rows(data or EXAMPLES, rows))
    passes = {dtype: ForwardPass(proxy) for dtype, proxy in proxies.items()}
    variants = {
        "float32": ("float32", "highest"),
        'float32, matmul precision "medium"': ("float32", "medium"),
        "bfloat16": ("bfloat16", "highest"),
    }
    found: dict[str, list[Measured]] = {}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, (dtype, precision) in variants.items():
            torch.set_float32_matmul_precision(precision)
            with timed() as took:
                results = dict(passes[dtype].measure(samples))
            found[name] = [each for _, each in sorted(results.items()) if isinstance(each, Measured)]
            assert len(found[name]) == len(samples), "a sample was not measured"
            seconds[name].append(took.processor)
    torch.set_float32_matmul_precision("highest")
    typical = {name: median(each) for name, each in seconds.items()}
    signals: Mapping[str, Callable[[Measured], float]] = {
        "nll": lambda each: float(each.nll.mean(dtype=np.float64)),
        "entropy": lambda each: float(each.entropy.mean(dtype=np.float64)),
        "head_grad_norm": lambda each: each.head_grad_norm,
    }
    for name in list(variants)[1:]:
        figure(f"pass in {name}", typical[name], against="float32", baseline=typical["float32"])
        for signal, of in signals.items():
            ours, exact = (np.array([of(each) for each in found[one]]) for one in (name, "float32"))
            error = np.abs(ours / exact - 1)
            alike = spearman(pl.DataFrame({"ours": ours, "exact": exact}))
            moved = abs(ours.mean() / exact.mean() - 1)
            ranks = "" if alike is None else f", rank correlation {alike:.5f}"
            print(
                f"{signal}: mean moved by {moved:.1e}; of a sample, median error {np.median(error):.1e}, "
                f"largest {error.max():.1e}{ranks}"
            )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="default: the example corpus")
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="smollm2-135m")
    kinds = list(KINDS)
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds, help="of processes to start")
    parser.add_argument("--alone", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.alone:
        start_alone(*arguments.alone)
        return
    from datapruner.home import home_folder
    from scorers.models.sources import resolve

    folder = resolve(arguments.model, home_folder()).path
    starts(folder, arguments.kinds, arguments.repeats)
    precisions(folder, arguments.data, arguments.rows, arguments.repeats)


if __name__ == "__main__":
    main()
