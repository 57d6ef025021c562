"""How a process that measures begins."""

from __future__ import annotations

import subprocess

from scorers.interpreter import PYTHON

_START = "import gc, sys; from importlib import util; from datapruner.measuring.workers import start"
_FOUND = "[name for name in ('torch', 'scipy', 'accelerate') if util.find_spec(name)]"


def test_a_measuring_process_has_torch_and_nothing_that_it_does_without() -> None:
    script = f"{_START}; start.main('worker'); print({_FOUND}, gc.isenabled(), file=sys.stderr)"
    said = subprocess.run([*PYTHON, "-c", script], input="", capture_output=True, text=True, check=True)
    assert (said.stdout, said.stderr) == ("", "['torch'] False\n")
