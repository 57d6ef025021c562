"""What the scripts here share, each of which runs in the environment of one trainer, where datapruner is not.

A script is given a job: the configuration that an export printed, a model, whether to pack, and a folder for
what trainers write. It lets the trainer train on that, and hands back the rows in what the model was fed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from functools import wraps
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

Job = dict[str, Any]
Row = tuple[list[int], list[int]]
"""The token ids of a row, and its labels: -100 where not trained on."""


def job() -> Job:
    """What this process is to do."""
    found: Job = json.loads(Path(sys.argv[1]).read_bytes())
    return found


def hand_back(given: Job, rows: Iterable[Row], *packages: str) -> None:
    """rows: what was fed. packages: whose versions are told, the trainer's first."""
    document = {"versions": {name: version(name) for name in packages}, "rows": list(rows)}
    Path(given["fed"]).write_text(json.dumps(document), encoding="utf-8")


def recorded(trainer: type[Any]) -> list[dict[str, Any]]:
    """Filled with every batch that a step of this class of trainers is given, as it trains."""
    batches: list[dict[str, Any]] = []
    step = trainer.training_step

    @wraps(step)
    def listening(self: Any, model: Any, inputs: dict[str, Any], *more: Any, **named: Any) -> Any:
        batches.append({name: each.tolist() for name, each in inputs.items() if hasattr(each, "tolist")})
        return step(self, model, inputs, *more, **named)

    trainer.training_step = listening
    return batches


def rows_of(batches: Iterable[dict[str, Any]]) -> Iterator[Row]:
    """The rows in batches: one a line and padded, or several in a line.

    Several are told apart by positions that begin at 0 again, or by a mask that counts them.
    """
    for batch in batches:
        for line, (ids, labels) in enumerate(zip(batch["input_ids"], batch["labels"], strict=True)):
            mask = batch["attention_mask"][line] if "attention_mask" in batch else [1] * len(ids)
            positions = batch["position_ids"][line] if "position_ids" in batch else list(range(len(ids)))
            starts = [
                at for at in range(len(ids)) if at == 0 or positions[at] == 0 or mask[at] != mask[at - 1]
            ]
            for start, stop in pairwise([*starts, len(ids)]):
                # Padding has nothing to train on, and every row that was exported has.
                if mask[start] and any(label != -100 for label in labels[start:stop]):
                    yield ids[start:stop], labels[start:stop]
