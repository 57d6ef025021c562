"""The measuring process: loads a proxy model once, then turns tasks into shards (`protocol`).

Notable choice: an error that the row will always cause (it cannot be rendered, its logits are not finite) is
written to the shard and so remembered; running out of memory is reported in `failed` and tried another day.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from datapruner.measuring.workers import protocol, shards
from datapruner.measuring.workers.protocol import Event, Write
from datapruner.measuring.workers.renderers import Renderers
from datapruner.measuring.workers.rendering import parted, rendered, renderer_of
from datapruner.measuring.workers.spec import WorkerSpec
from scorers.conversations.chat import ChatRenderer
from scorers.models.proxy import Proxy, load
from scorers.signals.forward import ForwardPass, Measured


class Worker:
    """One loaded proxy model and what turns conversations into shard rows."""

    def __init__(self, spec: WorkerSpec) -> None:
        proxy, self.renderer = loaded(spec)
        self.rendered_ahead = spec.renderers > 0
        self.forward = ForwardPass(proxy, token_budget=spec.token_budget, tied=spec.tied, lora=spec.lora)
        self.schema = shards.schema(
            self.forward.projection.vocabulary.shape[0] * self.forward.projection.hidden.shape[0],
            self.forward.head.weight.shape[1],
            lora=spec.lora,
        )

    def run(self, task: dict[str, Any]) -> Iterator[Event | Write]:
        """Measure a task's samples, yielding events, and what writes its shard."""
        samples = task["samples"]
        if self.rendered_ahead:
            ids = [sample_id for sample_id, _ in samples]
            encoded, rows = parted(samples)
        else:
            ids = [sample["id"] for sample in samples]
            encoded, rows = rendered(self.renderer, samples)
        failed: list[tuple[str, str]] = []
        yield {"event": "progress", "rows": len(rows), "tokens": 0}
        for index, result in self.forward.measure([e for _, e in encoded]):
            sample_id, sample = encoded[index]
            if isinstance(result, Measured):
                rows[sample_id] = shards.measured_row(sample_id, sample, result, self.forward.head_norm)
            elif result.permanent:
                rows[sample_id] = {"sample_id": sample_id, "error": result.reason}
            else:
                failed.append((sample_id, result.reason))
            yield {"event": "progress", "rows": 1, "tokens": len(sample.input_ids)}
        ordered = [rows[sample_id] for sample_id in ids if sample_id in rows]

        def write() -> Event:
            if ordered:
                try:
                    shards.write(Path(task["out"]), ordered, self.schema)
                except OSError as error:
                    return protocol.unwritten("the signals", error)
            return {"event": "done", "task": task["task"], "failed": failed}

        yield write


def loaded(spec: WorkerSpec) -> tuple[Proxy, ChatRenderer]:
    """The proxy model of a specification, and what renders samples for it. Raises ModelSourceError."""
    transformers_logging.disable_progress_bar()
    if spec.threads:
        torch.set_num_threads(spec.threads)
    proxy = load(Path(spec.folder), device=spec.device, dtype=spec.dtype)
    return proxy, renderer_of(spec, proxy.tokenizer, proxy.max_positions)


def main() -> None:
    """Run the protocol over the standard streams of this process."""
    with Renderers() as renderers:
        protocol.main(Worker, renderers.ahead)
