"""The rewarding process: loads a reward model once, then turns tasks into shards.

Of the specification it reads folder, dtype, device, token_budget and threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from transformers.utils import logging as transformers_logging

from datapruner.measuring.workers import protocol, shards
from datapruner.measuring.workers.spec import WorkerSpec, unwire
from scorers.conversations.chat import RenderError
from scorers.signals.forward import MeasureError
from scorers.signals.rewards import Read, RewardModel

OUTPUTS = "outputs"
_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("error", pa.string()),
        ("n_tokens", pa.int64()),
        (OUTPUTS, pa.list_(pa.float32())),
    ]
)


class Rewarder:
    """One loaded reward model and what turns conversations into shard rows."""

    def __init__(self, spec: WorkerSpec) -> None:
        transformers_logging.disable_progress_bar()
        if spec.threads:
            torch.set_num_threads(spec.threads)
        self.model = RewardModel(
            Path(spec.folder), device=spec.device, dtype=spec.dtype, token_budget=spec.token_budget
        )

    def run(self, task: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Reward a task's conversations and write its shard, yielding events."""
        samples = task["samples"]
        rows: dict[str, dict[str, Any]] = {}
        readable: list[tuple[str, Read]] = []
        for sample, found in zip(samples, self.model.read([unwire(each) for each in samples]), strict=True):
            if isinstance(found, RenderError):
                rows[sample["id"]] = {"sample_id": sample["id"], "error": found.reason}
            else:
                readable.append((sample["id"], found))
        failed: list[tuple[str, str]] = []
        yield {"event": "progress", "rows": len(rows), "tokens": 0}
        for at, output in self.model.score([each for _, each in readable]):
            sample_id, read = readable[at]
            if not isinstance(output, MeasureError):
                rows[sample_id] = {"sample_id": sample_id, "n_tokens": len(read.ids), OUTPUTS: output}
            elif output.permanent:
                rows[sample_id] = {"sample_id": sample_id, "error": output.reason}
            else:
                failed.append((sample_id, output.reason))
            yield {"event": "progress", "rows": 1, "tokens": len(read.ids)}
        ordered = [rows[sample["id"]] for sample in samples if sample["id"] in rows]
        if ordered:
            try:
                shards.write(Path(task["out"]), ordered, _SCHEMA)
            except OSError as error:
                yield protocol.unwritten("the rewards", error)
                return
        yield {"event": "done", "task": task["task"], "failed": failed}


def main() -> None:
    """Run the protocol over the standard streams of this process."""
    protocol.main(Rewarder)
