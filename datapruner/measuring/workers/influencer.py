"""The process that takes influence by LiSSA: loads a surrogate model once, then does the three kinds of task.

`about` of a task, beside its samples and `layer`, the weight's name or "":
    {"do": "gradients"}: write the sum of the samples' gradients
    {"do": "steps", "risk": path, "from": path or None, "first": 200, "damp": ..., "scale": ...}: write
        LiSSA's estimate after a step with each of the samples in turn
    {"do": "influence", "along": path, "scale": ...}: write a shard of the samples' influence

Estimates and gradients are safetensors with the one tensor of that name, sums in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import safetensors.torch
import torch
from torch import Tensor

from datapruner.measuring.workers import protocol, shards
from datapruner.measuring.workers.protocol import Event
from datapruner.measuring.workers.spec import WorkerSpec, unwire
from datapruner.measuring.workers.worker import loaded
from datapruner.system.files import publishing
from scorers.conversations.chat import RenderError
from scorers.signals import lissa
from scorers.signals.lissa import Surrogate

SCHEMA = pa.schema([("sample_id", pa.string()), ("error", pa.string()), ("influence", pa.float64())])


class Influencer:
    """One loaded surrogate model."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.proxy, self.renderer = loaded(spec)

    def run(self, task: dict[str, Any]) -> Iterator[Event]:
        """Do a task, yielding events."""
        rendered = self.renderer.render([unwire(sample) for sample in task["samples"]])
        samples = [text for text in rendered if not isinstance(text, RenderError)]
        if len(samples) < len(rendered):
            reason = next(text.reason for text in rendered if isinstance(text, RenderError))
            yield {"event": "broken", "message": f"a sample that was measured cannot be rendered: {reason}"}
            return
        do: Callable[[Surrogate, dict[str, Any]], Iterator[Event]] = {
            "gradients": _gradients,
            "steps": _steps,
            "influence": _influence,
        }[task["do"]]
        try:
            with Surrogate(self.proxy, samples, task["layer"] or None) as surrogate:
                yield from do(surrogate, task)
        except ValueError as error:  # no such layer, or LiSSA diverged
            yield {"event": "refused", "message": str(error)}
            return
        except OSError as error:
            yield protocol.unwritten("the influence", error)
            return
        yield {"event": "done", "task": task["task"], "failed": []}


def _gradients(surrogate: Surrogate, task: dict[str, Any]) -> Iterator[Event]:
    total = torch.zeros_like(surrogate.weight, dtype=torch.float64, device="cpu")
    for i in range(len(surrogate)):
        total += surrogate.gradient(i).cpu()
        yield _PROGRESS
    _write(Path(task["out"]), "gradients", total)


def _steps(surrogate: Surrogate, task: dict[str, Any]) -> Iterator[Event]:
    v = _read(task["risk"], "gradients").to(surrogate.weight)
    estimate = v.clone() if task["from"] is None else _read(task["from"], "estimate").to(surrogate.weight)
    for i in range(len(surrogate)):
        number = task["first"] + i + 1
        estimate = lissa.step(
            surrogate, v, estimate, i, damp=task["damp"], scale=task["scale"], number=number
        )
        yield _PROGRESS
    _write(Path(task["out"]), "estimate", estimate.cpu())


def _influence(surrogate: Surrogate, task: dict[str, Any]) -> Iterator[Event]:
    u = _read(task["along"], "estimate").to(surrogate.weight) / task["scale"]
    rows: list[dict[str, Any]] = []
    for i, sample in enumerate(task["samples"]):
        rows.append({"sample_id": sample["id"], "influence": lissa.influence(surrogate, i, u)})
        yield _PROGRESS
    shards.write(Path(task["out"]), rows, SCHEMA)


_PROGRESS = {"event": "progress", "rows": 1, "tokens": 0}


def _read(path: str, name: str) -> Tensor:
    return safetensors.torch.load_file(path)[name]


def _write(path: Path, name: str, tensor: Tensor) -> None:
    with publishing(path) as file:
        file.write(safetensors.torch.save({name: tensor.contiguous()}))


def main() -> None:
    """Run the protocol over the standard streams of this process."""
    protocol.main(Influencer)
