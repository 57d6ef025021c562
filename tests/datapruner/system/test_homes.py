"""A home is cleaned by one process while no other uses it, whichever way those end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datapruner.system import homes


@contextmanager
def another_user(home: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that uses the home until it is killed."""
    told = "import sys; from pathlib import Path; from datapruner.system import homes"
    told += "; homes.use(Path(sys.argv[1])); print('used', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", told, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "used\n"
        yield process
        process.kill()


def test_whoever_used_the_home_keeps_others_from_having_it_alone_until_it_ends(tmp_path: Path) -> None:
    homes.use(tmp_path)
    with another_user(tmp_path) as other:
        for _ in range(2):  # having been refused, this process still uses it
            with homes.alone(tmp_path) as alone:
                assert not alone
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        with homes.alone(tmp_path) as alone:
            assert alone


def test_a_process_waits_with_using_a_home_that_another_has_alone(tmp_path: Path) -> None:
    told = "import fcntl, os, sys; f = os.open(sys.argv[1], os.O_RDWR)"
    told += "; fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)"
    with homes.alone(tmp_path) as alone:
        assert alone
        command = [sys.executable, "-c", told, str(tmp_path / ".in-use")]
        assert b"BlockingIOError" in subprocess.run(command, check=False, capture_output=True).stderr
    with another_user(tmp_path):
        pass


def test_a_home_that_is_not_there_or_takes_no_files_is_never_had_alone(tmp_path: Path) -> None:
    homes.use(tmp_path / "missing")
    with homes.alone(tmp_path / "missing") as alone:
        assert not alone
