"""Standard output and error whose readers have gone, that are full, or that were closed from the start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from datapruner.system import outlets

SAYS = """
import sys
from datapruner.system import outlets
try:
    with outlets.outliving_readers():
        for _ in range(3):
            print("x" * 100_000)
        print("\\u2192", file=sys.stderr)
except OSError as error:
    print(error, file=sys.stderr)
    sys.exit(5)
sys.exit(7)
"""


def ended(redirected: str, **environment: str) -> tuple[int, str]:
    """Exit code and standard error of a program that writes more than a pipe holds, run by a shell."""
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "$0" {redirected}; exit "${{PIPESTATUS[0]}}"', SAYS],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(outlets.__file__).parents[2]), **environment},
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("redirected", ["| true", "| head -c 1 >/dev/null", ">&-", ">/dev/null"])
def test_a_program_ends_as_if_it_were_read(redirected: str, unbuffered: str) -> None:
    assert ended(redirected, PYTHONUNBUFFERED=unbuffered, PYTHONIOENCODING="ascii") == (7, "\\u2192\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_an_error_that_names_the_stream(unbuffered: str) -> None:
    code, said = ended(">/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert code == 5
    assert said == "[Errno 28] No space left on device: 'standard output'\n"


def test_closed_standard_error_is_no_failure() -> None:
    assert ended("2>&- >/dev/null") == (7, "")


def test_streams_of_another_program_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    theirs = sys.stdout
    with outlets.outliving_readers():
        assert sys.stdout is theirs
        print("said")
    assert capsys.readouterr().out == "said\n"
