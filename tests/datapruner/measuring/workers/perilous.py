"""The real worker, but for some samples it is killed: `perilous.py DEADLY_TEXT [UNLUCKY_TEXT FILE]`.

A sample with DEADLY_TEXT always kills it, one with UNLUCKY_TEXT as long as FILE does not exist.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datapruner.measuring.workers import protocol, worker


class PerilousWorker(worker.Worker):
    def run(self, task: dict[str, Any]) -> Iterator[dict[str, Any]]:
        deadly, unlucky, file = (*sys.argv[1:], "", "")[:3]
        text = "\n".join(turn[1] for sample in task["samples"] for turn in sample["turns"])
        for number, event in enumerate(super().run(task)):
            yield event
            if number == 2 and unlucky and unlucky in text and not Path(file).exists():
                Path(file).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if deadly and deadly in text:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    protocol.main(PerilousWorker)
