"""Are two mathematical answers equal? Decided by math-verify, in a process that can be killed.

What is compared was written by a model, or by whoever wrote the corpus: `9^{9^{9^9}}` keeps a computer
algebra system busy until memory or patience ends, and its big-number code answers no signal. So the
comparison runs in a subprocess with a bound on its memory, which ends when it takes too long; the next
comparison starts another. Run as `python -m datapruner.rewriting.math_judge` it is that process: a JSON
line in, a JSON line out.

Notable choices:
- both sides are read as the content of a `\\boxed{}`, so prose around a number is not searched for numbers;
- math-verify is generous with percent signs (9 % equals 9) and with names (`x = 4` equals 4); so are we.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

from datapruner.errors import WorkerError
from scorers.interpreter import PYTHON

#: Most seconds for one comparison; nearly all take less than a fifth of one.
SECONDS = 10.0
_START_SECONDS = 60.0  # imports on a busy machine
_MEMORY_BYTES = 2 << 30


class MathJudge:
    """Compares mathematical answers. One comparison at a time; safe to share between threads.

    The process starts with the first comparison and ends with `close`, or with the judge.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._end: Callable[[], object] = _nothing

    def equal(self, reference: str, candidate: str) -> bool:
        """Whether both can be read as mathematics and are equal; False where that takes too long to find out.

        Raises WorkerError when the process cannot be started.
        """
        with self._lock:
            process = self._process if self._process is not None else self._start()
            reply = _exchange(process, {"reference": reference, "candidate": candidate}, self._seconds)
            if reply is None:
                self._forget()
            return reply is True

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._forget()

    def _start(self) -> subprocess.Popen[str]:
        try:
            process = subprocess.Popen(
                [*PYTHON, "-m", "datapruner.rewriting.math_judge"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            raise WorkerError(f"cannot start the process that compares answers: {error}") from error
        self._process, self._end = process, weakref.finalize(self, _end, process)
        if _exchange(process, {"reference": "1", "candidate": "1"}, _START_SECONDS) is not True:
            self._forget()
            raise WorkerError(
                "the process that compares mathematical answers does not work",
                remedy="see what `python -c 'import math_verify'` says",
            )
        return process

    def _forget(self) -> None:
        self._end()
        self._process, self._end = None, _nothing


def _nothing() -> None:
    """What ends no process."""


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with contextlib.suppress(OSError):  # what was left unsent
            pipe.close()


def _exchange(process: subprocess.Popen[str], message: dict[str, str], seconds: float) -> bool | None:
    """The process's verdict; None when there is none after `seconds`, and the process is no more then."""
    assert process.stdin is not None
    assert process.stdout is not None
    late = threading.Event()

    def give_up() -> None:
        late.set()
        process.kill()

    patience = threading.Timer(seconds, give_up)
    patience.start()
    try:
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except OSError:
        return None
    finally:
        patience.cancel()
        patience.join()  # from here on it is killed or it will not be
    return None if late.is_set() or not line.endswith("\n") else bool(json.loads(line))


def _serve() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    from math_verify import (
        LatexExtractionConfig,
        parse,
        verify,
    )

    def read(text: str) -> list[Any]:
        boxed = [LatexExtractionConfig(boxed_match_priority=0)]
        found: list[Any] = parse(f"\\boxed{{{text}}}", boxed, fallback_mode="no_fallback")
        return found

    for line in sys.stdin:
        message = json.loads(line)
        reference, candidate = read(message["reference"]), read(message["candidate"])
        equal = bool(reference) and bool(candidate) and verify(reference, candidate)
        print(json.dumps(bool(equal)), flush=True)


if __name__ == "__main__":
    _serve()
