"""Benchmarks in processes of their own, and what they took."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]


def peak_mib() -> float:
    """Peak memory of this process so far.

    Not getrusage's, which begins at the size of the process that started this one (Linux only).
    """
    return memory()["peak"]


def alone(script: str, *arguments: str) -> Any:
    """What a benchmark prints last, as JSON, when it is run with these arguments in a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.{script}", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def memory(process: int | str = "self") -> dict[str, float]:
    """MiB of a process: its peak so far, and what is its own now, not mapped from files (Linux only)."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    names = {"peak": "VmHWM:", "memory of its own": "RssAnon:"}
    return {what: int(status.partition(name)[2].split()[0]) / 1024 for what, name in names.items()}


@dataclass
class Took:
    """Wall and processor seconds, those of ended child processes included."""

    wall: float = 0.0
    processor: float = 0.0


def _processor() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


@contextmanager
def timed() -> Iterator[Took]:
    """What the block takes; filled in at its end."""
    took, wall, processor = Took(), time.perf_counter(), _processor()
    yield took
    took.wall, took.processor = time.perf_counter() - wall, _processor() - processor


def in_turns(
    variants: Mapping[str, Callable[[], object]],
    repeats: int,
    wait: Callable[[], object] = lambda: None,
) -> dict[str, Took]:
    """Each variant's median times over `repeats` rounds.

    They take turns, so that a busy machine slows all alike. `wait` is called before and at the end of each,
    for a device to finish.
    """
    took: dict[str, list[Took]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, work in variants.items():
            wait()
            with timed() as seconds:
                work()
                wait()
            took[name].append(seconds)
    return {
        name: Took(median(t.wall for t in each), median(t.processor for t in each))
        for name, each in took.items()
    }
