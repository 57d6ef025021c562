"""The embedding process: loads a sentence-embedding model once, then turns tasks into shards.

Of the specification it reads folder, max_length, device and threads; a task's samples are texts:
`{"id": ..., "text": ...}`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from transformers.utils import logging as transformers_logging

from datapruner.measuring import vectors
from datapruner.measuring.workers import protocol, shards
from datapruner.measuring.workers.spec import WorkerSpec
from scorers.models.encoders import pooling
from scorers.models.sentences import SentenceEncoder
from scorers.signals.columns import SENTENCE_EMBEDDING


class Embedder:
    """One loaded encoder and what turns texts into shard rows."""

    def __init__(self, spec: WorkerSpec) -> None:
        transformers_logging.disable_progress_bar()
        if spec.threads:
            torch.set_num_threads(spec.threads)
        folder = Path(spec.folder)
        self.encoder = SentenceEncoder(
            folder, pooling=pooling(folder), max_length=spec.max_length, device=spec.device
        )
        self.schema = pa.schema(
            [
                ("sample_id", pa.string()),
                ("error", pa.string()),
                (SENTENCE_EMBEDDING, vectors.packed(self.encoder.width)),
            ]
        )

    def run(self, task: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Embed a task's texts and write its shard, yielding events."""
        rows = [{"sample_id": sample["id"]} for sample in task["samples"]]
        for at, vector, tokens in self.encoder.encode([sample["text"] for sample in task["samples"]]):
            rows[at][SENTENCE_EMBEDDING] = vector
            yield {"event": "progress", "rows": 1, "tokens": tokens}
        try:
            shards.write(Path(task["out"]), rows, self.schema)
        except OSError as error:
            yield protocol.unwritten("the embeddings", error)
            return
        yield {"event": "done", "task": task["task"], "failed": []}


def main() -> None:
    """Run the protocol over the standard streams of this process."""
    protocol.main(Embedder)
