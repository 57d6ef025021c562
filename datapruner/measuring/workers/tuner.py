"""The process that tunes a model on a target set: trains an adapter, and publishes the model with it merged.

`about` of a task, beside its samples: `steps`, the samples of each step by their numbers, `rate`, `seed` and
`seconds`, after which no further step is begun. Its `out` is the folder that becomes a model's.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from datapruner.errors import ModelError
from datapruner.measuring.workers import protocol
from datapruner.measuring.workers.protocol import Event
from datapruner.measuring.workers.rendering import renderer_of
from datapruner.measuring.workers.spec import WorkerSpec, unwire
from datapruner.system.files import publishing_folder
from datapruner.tuning.examples import Examples
from datapruner.tuning.reading import read
from datapruner.tuning.training import Trainee
from scorers.conversations.chat import Encoded, RenderError
from scorers.models.tokenizer import max_positions

RECORD = "tuned.json"
"""What came of a tuning, and which files the model has."""

_OF_A_MODEL = ("*.json", "*.jinja", "tokenizer.model", "merges.txt")


class Tuner:
    """What tunes the model of a specification: anew for every task, as a tuned one is another model."""

    def __init__(self, spec: WorkerSpec) -> None:
        transformers_logging.disable_progress_bar()
        if spec.threads:
            torch.set_num_threads(spec.threads)
        self.spec = spec

    def run(self, task: dict[str, Any]) -> Iterator[Event]:
        """Do a task, yielding events."""
        try:
            trainee = Trainee(
                Path(self.spec.folder), self.spec.device, full=False, token_budget=self.spec.token_budget
            )
        except ModelError as error:
            yield {"event": "refused", "message": str(error)}
            return
        renderer = renderer_of(self.spec, trainee.tokenizer, max_positions(trainee.model.config))
        rendered = renderer.render([unwire(sample) for sample in task["samples"]])
        readable = [at for at, text in enumerate(rendered) if not isinstance(text, RenderError)]
        if not readable:
            reason = next(text.reason for text in rendered if isinstance(text, RenderError))
            message = f"no row of the target set can be read; the first: {reason}"
            yield {"event": "refused", "message": message}
            return
        number = {at: row for row, at in enumerate(readable)}
        texts = [text for text in rendered if isinstance(text, Encoded)]
        examples = Examples.of([text.input_ids for text in texts], [text.position for text in texts])
        steps = [np.array([number[at] for at in step if at in number], np.int64) for step in task["steps"]]
        started, done, trained = time.monotonic(), 0, 0
        with trainee.training(task["seed"], task["rate"], len(steps)) as step:
            before = _loss(trainee, examples)
            for rows in steps:
                if done and time.monotonic() - started > task["seconds"]:
                    break
                if len(rows):
                    step(examples, rows)
                done, trained = done + 1, trained + int(examples.counted[rows].sum())
                yield {"event": "progress", "rows": 1, "tokens": 0}
        after = _loss(trainee, examples)
        if not math.isfinite(after):
            yield {"event": "refused", "message": "tuning on the target set diverged: its loss is no number"}
            return
        outcome = {
            "steps": done,
            "steps_asked": len(steps),
            "rows": len(examples),
            "unread": len(rendered) - len(examples),
            "trained_tokens": trained,
            "loss_before": before,
            "loss_after": after,
            "seconds": time.monotonic() - started,
        }
        try:
            _publish(trainee, Path(self.spec.folder), Path(task["out"]), outcome)
        except OSError as error:
            yield protocol.unwritten("the tuned model", error)
            return
        yield {"event": "done", "task": task["task"], "failed": []}


def _loss(trainee: Trainee, examples: Examples) -> float:
    """Nats a token, of all that count."""
    return float(read(trainee, examples).sum() / examples.counted.sum())


def _publish(trainee: Trainee, base: Path, out: Path, outcome: dict[str, Any]) -> None:
    """Write the model, with the tokenizer and template of the one that it was, and what came of tuning it."""
    with publishing_folder(out) as folder:
        trainee.merged().save_pretrained(folder)
        for pattern in _OF_A_MODEL:
            for path in base.glob(pattern):
                if not (folder / path.name).exists() and not path.name.endswith(".index.json"):
                    shutil.copyfile(path, folder / path.name)
        record = {"outcome": outcome, "files": sorted(path.name for path in folder.iterdir())}
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Run the protocol over the standard streams of this process."""
    protocol.main(Tuner)
