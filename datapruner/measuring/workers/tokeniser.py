"""What renders and tokenises samples for runs that read nothing of the model: it has none, and its shards
hold token ids and their places alone. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datapruner.measuring.workers import protocol, shards
from datapruner.measuring.workers.rendering import rendered, renderer_of
from datapruner.measuring.workers.spec import WorkerSpec
from scorers.models import tokenizer


class Tokeniser:
    """A model's tokenizer and chat template, and what turns conversations into shard rows."""

    def __init__(self, spec: WorkerSpec) -> None:
        config, loaded = tokenizer.load(Path(spec.folder))
        self.renderer = renderer_of(spec, loaded, tokenizer.max_positions(config))

    def run(self, task: dict[str, Any]) -> Iterator[protocol.Event]:
        """Tokenise a task's samples and write their shard, yielding events."""
        samples = task["samples"]
        encoded, rows = rendered(self.renderer, samples)
        rows |= {sample_id: shards.tokens_row(sample_id, sample) for sample_id, sample in encoded}
        try:
            shards.write(Path(task["out"]), [rows[sample["id"]] for sample in samples], shards.TOKENS)
        except OSError as error:
            yield protocol.unwritten("the tokens", error)
            return
        tokens = sum(len(sample.input_ids) for _, sample in encoded)
        yield {"event": "progress", "rows": len(samples), "tokens": tokens}
        yield {"event": "done", "task": task["task"], "failed": []}


def main() -> None:
    """Run the protocol over the standard streams of this process."""
    protocol.main(Tokeniser)
