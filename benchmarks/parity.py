"""The worst relative error of every signal against an fp64, batch-1, autograd reference.

    python -m benchmarks.parity [--device cpu] [--dtype float32] [--smollm2]

Fails where a bound is broken.

Small random models of several architectures, samples with one-token responses, several turns, common openings
and lengths that use both forms of ||G||; DON and NOD against an SGD step taken in fp64. DON's error is
relative to the step's length, since <W, G> may cancel to nearly nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import transformers as tf
from rich.console import Console
from rich.table import Table

from benchmarks.figures import figure
from datapruner.home import home_folder
from scorers.methods.donod import don_nod
from scorers.models.proxy import DTYPES
from scorers.models.sources import resolve
from scorers.signals.forward import ForwardPass, Measured
from tests import proxies, reference

RATE = 2e-5
MEAN = "nll over all"
SIGNALS = (
    "nll",
    "entropy",
    "el2n",
    "head_grad_norm",
    "head_grad_dot",
    "head_grad_projection",
    "mean_hidden",
    "weighted_hidden",
)
BOUNDS: dict[str, dict[str, float]] = {
    "float32": dict.fromkeys((*SIGNALS, MEAN, "don", "nod"), 1e-5),
    "bfloat16": {"head_grad_norm": 5e-3, MEAN: 1e-3},
    "float16": {"head_grad_norm": 5e-3, MEAN: 1e-3},
}
"""Signal -> the largest relative error that is no fault; in half precision, of what ranks rows."""


def samples() -> list[proxies.Sample]:
    """Varied samples, and three that begin alike."""
    opening = np.arange(20, 40, dtype=np.int32)
    alike = [
        proxies.Sample(np.concatenate([opening, s.input_ids]), s.position + len(opening))
        for s in proxies.samples([(4, 6), (5, 1), (4, 40)], seed=2)
    ]
    return [*proxies.samples(proxies.VARIED), proxies.multi_turn(), *alike]


def worst_errors(model: Any, device: torch.device, tied: bool) -> dict[str, float]:
    """Worst error by signal over all samples, with whole and with chunked vocabularies."""
    model64 = reference.double(model).cpu()
    run = ForwardPass(proxies.Proxy(model.to(device), device), tied=tied)
    rows = samples()
    expected = [reference.measure(model64, row, tied=tied) for row in rows]
    run.projection = type(run.projection)(
        *(side.to(device) for side in (run.projection.vocabulary, run.projection.hidden))
    )
    worst: dict[str, float] = {}
    for chunk_rows in (16, run.chunk_rows):
        run.chunk_rows = chunk_rows
        means = np.zeros(len(rows))
        for index, found in run.measure(rows):
            assert isinstance(found, Measured), found
            means[index] = found.nll.mean()
            for name, error in _errors(found, expected[index], run):
                worst[name] = max(worst.get(name, 0.0), error)
        mean = reference.relative(means.mean(), np.mean([each.nll.mean() for each in expected]))
        worst[MEAN] = max(worst.get(MEAN, 0.0), mean)
    return worst


def _errors(found: Measured, expected: reference.Reference, run: ForwardPass) -> Iterable[tuple[str, float]]:
    host = type(run.projection)(run.projection.vocabulary.cpu(), run.projection.hidden.cpu())
    yield from reference.errors(found, expected, host).items()
    steps = [("", found.head_grad_norm, found.head_grad_dot, expected.grad)]
    if expected.tied_grad is not None:
        assert found.tied_grad_norm is not None
        assert found.tied_grad_dot is not None
        steps.append(("tied_", found.tied_grad_norm, found.tied_grad_dot, expected.tied_grad))
    for prefix, norm, dot, grad in steps:
        don, nod = don_nod(np.array([norm]), np.array([dot]), np.array([run.head_norm]), RATE)
        stepped = expected.weight - RATE * grad
        length = (expected.weight - stepped).norm().item()
        change = (expected.weight.norm() - stepped.norm()).item()
        yield f"{prefix}don", abs(don[0] - change) / length
        yield f"{prefix}nod", abs(nod[0] - length) / length


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=tuple(DTYPES))
    parser.add_argument("--families", nargs="+", default=tuple(proxies.CONFIGS), choices=proxies.CONFIGS)
    parser.add_argument("--smollm2", action="store_true", help="also the default proxy model (minutes)")
    arguments = parser.parse_args(argv)
    device, dtype = torch.device(arguments.device), DTYPES[arguments.dtype]
    found: dict[str, dict[str, float]] = {}
    for family in arguments.families:
        found[family] = worst_errors(proxies.build(family, dtype), device, family in proxies.TIED)
    if arguments.smollm2:
        folder = resolve("smollm2-135m", home_folder()).path
        model = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().requires_grad_(False)
        found["smollm2-135m"] = worst_errors(model, device, tied=True)
    table = Table(title=f"worst relative error, {arguments.dtype} on {device} against fp64")
    table.add_column("signal")
    for family in found:
        table.add_column(family, justify="right")
    for name in dict.fromkeys(name for errors in found.values() for name in errors):
        table.add_row(name, *(f"{e[name]:.0e}" if name in e else "" for e in found.values()))
    Console(width=200).print(table)
    broken = []
    for name, bound in BOUNDS[arguments.dtype].items():
        worst, family = max((errors[name], family) for family, errors in found.items() if name in errors)
        what = f"{name}, {arguments.dtype} on {device.type}, worst on {family}"
        if not figure(what, worst, against="its bound", baseline=bound, unit="of fp64", at_most=1).reached:
            broken.append(name)
    if broken:
        raise SystemExit(f"beyond the bound: {', '.join(broken)}")


if __name__ == "__main__":
    main()
