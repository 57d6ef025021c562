"""The process that tries calibration batches: loads a model once, compresses with each batch, measures what
changed.

A task's samples are token ids, `{"id": ..., "input_ids": [...], "position": [...]}`; `about` says which of
them make up which batch: `{"batches": [[0, 1], [2, 3]], "held_out": [4, 5], "sparsity": 0.5}`. The result is
a file with a JSON list, each batch's divergence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datapruner.measuring.workers import protocol
from datapruner.measuring.workers.protocol import Event
from datapruner.measuring.workers.spec import WorkerSpec
from datapruner.measuring.workers.worker import loaded
from datapruner.system.files import publishing
from scorers.signals.calibration_kl import divergences


@dataclass(frozen=True, slots=True)
class Tokens:
    """A sample as the model reads it."""

    input_ids: NDArray[np.int32]
    position: NDArray[np.int32]


class Calibrator:
    """One loaded model."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.proxy, _ = loaded(spec)

    def run(self, task: dict[str, Any]) -> Iterator[Event]:
        """Try every batch and write their divergences, yielding events."""
        samples = [
            Tokens(np.array(each["input_ids"], np.int32), np.array(each["position"], np.int32))
            for each in task["samples"]
        ]
        batches = [[samples[at] for at in batch] for batch in task["batches"]]
        held_out = [samples[at] for at in task["held_out"]]
        found: list[float] = []
        try:
            for each in divergences(self.proxy, batches, held_out, sparsity=task["sparsity"]):
                found.append(each)
                yield {"event": "progress", "rows": 1, "tokens": 0}
        except ValueError as error:
            yield {"event": "refused", "message": str(error)}
            return
        try:
            with publishing(Path(task["out"])) as file:
                file.write(json.dumps(found).encode())
        except OSError as error:
            yield protocol.unwritten("the divergences", error)
            return
        yield {"event": "done", "task": task["task"], "failed": []}


def main() -> None:
    """Run the protocol over the standard streams of this process."""
    protocol.main(Calibrator)
