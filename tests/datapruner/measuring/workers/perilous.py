"""The real worker, but of some samples it is killed: `perilous.py DEADLY_TEXT UNLUCKY_TEXT FILE`.

A sample with DEADLY_TEXT kills it before it is measured, and before there is a model if there is none yet, as
that takes seconds; one with UNLUCKY_TEXT does in the middle, as long as FILE does not exist.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datapruner.measuring.workers import protocol
from datapruner.measuring.workers.spec import WorkerSpec


class PerilousWorker:
    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._worker: protocol.Runner | None = None

    def run(self, task: dict[str, Any]) -> Iterator[protocol.Event | protocol.Write]:
        deadly, unlucky, file = sys.argv[1:]
        text = "\n".join(turn[1] for sample in task["samples"] for turn in sample["turns"])
        if deadly in text:
            os.kill(os.getpid(), signal.SIGKILL)
        for number, event in enumerate(self._loaded().run(task)):
            yield event
            if number == 2 and unlucky in text and not Path(file).exists():
                Path(file).touch()
                os.kill(os.getpid(), signal.SIGKILL)

    def _loaded(self) -> protocol.Runner:
        if self._worker is None:
            from datapruner.measuring.workers.worker import Worker

            self._worker = Worker(self._spec)
        return self._worker


if __name__ == "__main__":
    protocol.main(PerilousWorker)
