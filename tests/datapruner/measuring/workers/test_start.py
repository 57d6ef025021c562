"""How a process that measures begins."""

from __future__ import annotations

import subprocess

from datapruner.measuring.workers.spec import WorkerSpec, spec_line
from scorers.interpreter import PYTHON
from tests.waiting import has_ended, until

_START = "import gc, sys; from importlib import util; from datapruner.measuring.workers import start"
_FOUND = "[name for name in ('torch', 'scipy', 'accelerate') if util.find_spec(name)]"


def test_a_measuring_process_has_torch_and_nothing_that_it_does_without() -> None:
    script = f"{_START}; start.main('worker'); print({_FOUND}, gc.isenabled(), file=sys.stderr)"
    said = subprocess.run([*PYTHON, "-c", script], input="", capture_output=True, text=True, check=True)
    assert (said.stdout, said.stderr) == ("", "['torch'] False\n")


def test_a_measuring_process_ends_with_the_one_that_started_it() -> None:
    """Whose death it is told of by nothing else here: its input stays open."""
    script = (
        "import subprocess, sys; from datapruner.measuring.workers.start import START;"
        "process = subprocess.Popen([sys.executable, '-P', *START, 'tokeniser']);"
        "print(process.pid, flush=True); process.wait()"
    )
    spec = WorkerSpec("/no/model", "", "float32", None, "truncate", "all", False, "cpu", None, 1)
    with subprocess.Popen(
        [*PYTHON, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.stdin.write(spec_line(spec))
        parent.stdin.flush()
        assert '"refused"' in parent.stdout.readline()
        parent.kill()
        until(lambda: has_ended(child))
