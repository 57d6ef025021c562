"""Benchmarks one after another, each in a process of its own, and one table of what they found.

A job's figures are in a file of their own as they come, and the table is written after every job: a run that
is cut off loses nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import figures
from benchmarks.processes import ROOT

OUT = ROOT / "build" / "benchmarks"


@dataclass(frozen=True)
class Job:
    script: str
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.script, *self.arguments))


def run_all(jobs: Sequence[Job], out: Path, seconds: float) -> int:
    """Run the jobs within so many seconds in all; their table, `figures.md` in `out`, is printed at the end.

    Returns an exit status: 1 where a job failed, was cut off or had no time left.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{number:02}-{job.script}.jsonl" for number, job in enumerate(jobs)]
    for file in out.glob("*.jsonl"):
        file.unlink()
    until, faults = time.monotonic() + seconds, []
    for job, file in zip(jobs, files, strict=True):
        began = time.monotonic()
        print(f"\n== {job}", flush=True)
        fault = _run(job, file, until - began)
        print(f"== {fault or 'done'} after {time.monotonic() - began:.0f} s", flush=True)
        if fault:
            faults.append(f"{job}: {fault}")
        found = [
            (job.script, each) for job, file in zip(jobs, files, strict=True) for each in figures.read(file)
        ]
        (out / "figures.md").write_text(figures.markdown(found), encoding="utf-8")
    print("\n" + "\n".join([(out / "figures.md").read_text(encoding="utf-8"), *faults]), flush=True)
    return int(bool(faults))


def _run(job: Job, file: Path, seconds: float) -> str:
    """What went wrong; empty when nothing did."""
    if seconds <= 0:
        return "no time was left"
    command = [sys.executable, "-m", f"benchmarks.{job.script}", *job.arguments]
    environment = os.environ | {figures.FILE: str(file), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True) as process:
        try:
            status = process.wait(seconds)
        except BaseException as stop:
            os.killpg(process.pid, signal.SIGKILL)  # and whatever it has started
            if isinstance(stop, subprocess.TimeoutExpired):
                return f"cut off at {seconds:.0f} s"
            raise
    return f"exit status {status}" if status else ""
