"""Folders in which jobs build their files: each with one job, gone when that job ends, however it ends.

Notable choice: whoever works in a folder holds a lock on a file in it, which the system lets go when the
process dies. So what a killed worker leaves can be told from what is in use, whatever became of its job.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_HELD = ".held"


@contextmanager
def working(root: Path, job_id: str) -> Iterator[Path]:
    """A new folder below `root`, for as long as the block runs. Raises OSError."""
    root.mkdir(parents=True, exist_ok=True)
    with _turn(root):  # no sweep sees the folder before it is held
        folder = Path(tempfile.mkdtemp(prefix=f"{job_id}-", dir=root))
        held = FileLock(folder / _HELD)
        held.acquire(timeout=0)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # on a disk that refuses, a later sweep does it
        held.release()


def sweep(root: Path) -> None:
    """Remove the folders below `root` that nobody works in any more. Raises OSError."""
    root.mkdir(parents=True, exist_ok=True)
    with _turn(root):
        for folder in [path for path in root.iterdir() if path.is_dir()]:
            try:
                with FileLock(folder / _HELD, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
            except (Timeout, FileNotFoundError):  # at work; or just done
                continue


def _turn(root: Path) -> FileLock:
    return FileLock(root / ".turn")
