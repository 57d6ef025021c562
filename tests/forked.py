"""Processes of ours by the dozen, forked from one that has imported the service: to start each on its own
takes seconds of a processor."""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir, suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from tests.waiting import PATIENCE

_ROOT = Path(__file__).parents[1]
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(
    ["tests.forked", "api.app", "datapruner.service.worker", "datapruner.library", "datasets", "torch"]
)


class Forked:
    """A process, just started, that calls `task(*arguments)` with no environment but this, and ends.

    What it prints and logs is appended to the file `said`; what goes to standard error to `errors`, if given.
    """

    def __init__(
        self,
        task: Callable[..., object],
        *arguments: Any,
        environment: Mapping[str, str],
        said: Path,
        errors: Path | None = None,
    ) -> None:
        self.said = said
        said.touch()
        self._begins = said.stat().st_size
        with chdir(_ROOT):  # whose modules it is to find, not those of where a test is
            forkserver.ensure_running()
        given = (task, arguments, dict(environment), str(said), str(errors or said))
        self._process = _FORKING.Process(target=_do, args=given, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """How it ended: its exit code, or the negative number of a signal."""
        return self._process.exitcode

    def wait(self, seconds: float = PATIENCE) -> int:
        """How it ended, once it has."""
        self._process.join(seconds)
        code = self._process.exitcode
        assert code is not None, f"it still runs: {self.said.read_text()[-5000:]}"
        return code

    def printed(self) -> str:
        """What it has printed and logged so far, without what stood in the file before."""
        return self.said.read_bytes()[self._begins :].decode(errors="replace")

    def terminate(self) -> None:
        """Tell it to end, if it has not ended."""
        self.send(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        self._process.kill()
        self._process.join()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it has not ended: how it did is known a moment later only."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


def command_line(arguments: Sequence[str], folder: str) -> None:
    """A task: what our command does with these arguments, in a folder."""
    from datapruner.cli import main

    os.chdir(folder)
    sys.exit(main(arguments))


def python_file(arguments: Sequence[str], folder: str) -> None:
    """A task: what Python does with a file, in a folder."""
    os.chdir(folder)
    [file] = arguments
    runpy.run_path(file, run_name="__main__")


def module(name: str, arguments: Sequence[str]) -> None:
    """A task: what `python -m NAME` does with these arguments."""
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _do(
    task: Callable[..., object], arguments: tuple[Any, ...], environment: dict[str, str], *said: str
) -> None:
    gc.freeze()  # to look through what it was born with would be to copy it
    os.setsid()  # Ctrl-C is for the tests
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in zip((sys.stdout, sys.stderr), said, strict=True):
        output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, stream.fileno())
        os.close(output)
    task(*arguments)
