"""The README and the pages that it leads to, as a list of steps, and the terminals that take them."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.forked import Forked, command_line, python_file
from tests.served import WAIT
from tests.waiting import until

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
_FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(datapruner [^`]+)`")
_PAGE = re.compile(r"\]\((docs/\w+\.md)\)")
_COMMENT = re.compile(r"\s+#\s.*$", re.MULTILINE)


def pages() -> list[Path]:
    """The README, then its pages in the order in which it leads to them."""
    found = _PAGE.findall(README.read_text(encoding="utf-8"))
    return [README, *(ROOT / name for name in dict.fromkeys(found))]


@dataclass(frozen=True, slots=True)
class Step:
    """A command of a `sh` block, all of a `python` block, or a command within the text (`inline`)."""

    kind: str
    text: str

    @property
    def name(self) -> str:
        """Its text in one line, without comments."""
        return " ".join(_COMMENT.sub("", self.text).replace("\\\n", " ").split())


def steps(text: str) -> Iterator[Step]:
    """Everything that a reader can type, in the order in which it stands there."""
    end = 0
    for block in _FENCED.finditer(text):
        yield from (Step("inline", found[1]) for found in _INLINE.finditer(text[end : block.start()]))
        if block[1] == "sh":
            yield from (Step("sh", command) for command in commands(block[2]))
        elif block[1] == "python":
            yield Step("python", block[2])
        end = block.end()
    yield from (Step("inline", found[1]) for found in _INLINE.finditer(text[end:]))


def commands(script: str) -> Iterator[str]:
    """The commands of a shell script; one may have several lines."""
    pending = ""
    for line in script.splitlines():
        pending += f"{line}\n"
        if line.endswith("\\"):
            continue
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:  # a quote is open
            continue
        if words:
            yield pending.rstrip()
        pending = ""
    assert not pending, f"a command without an end: {pending}"


def blocks(text: str, language: str) -> list[str]:
    """What stands in the blocks of a language."""
    return [found[2] for found in _FENCED.finditer(text) if found[1] == language]


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended, None while it goes on, and what it said."""

    code: int | None
    out: str
    err: str


class Terminal:
    """A shell that keeps its variables from one command to the next."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._log, self._count = folder / ".said", 0
        self._log.mkdir(exist_ok=True)
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def type(self, command: str) -> Said:
        """Run a command to its end."""
        out, err = self._give(command)
        return Said(int(self._answer()), out.read_text(), err.read_text())

    def start(self, command: str, expected: str) -> Said:
        """Run a command that goes on, until it has said what is expected."""
        out, err = self._give(command)
        until(lambda: out.exists() and expected in out.read_text(), lambda: (out, err.read_text()))
        return Said(None, out.read_text(), err.read_text())

    def _give(self, command: str) -> tuple[Path, Path]:
        self._count += 1
        out, err = (self._log / f"{id(self)}-{self._count}.{end}" for end in ("out", "err"))
        self._write(f'{{ {command}\n}} >"{out}" 2>"{err}" </dev/null; echo $?\n')
        return out, err

    def _write(self, text: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(text)
        self._shell.stdin.flush()

    def _answer(self) -> str:
        assert self._shell.stdout is not None
        return self._shell.stdout.readline()

    def close(self) -> None:
        """End what still runs in it, and the shell."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._shell.pid).children():
                child.terminate()
        self._shell.communicate()


_ASKING = """
exec 3>&1 4<&0
_forked() {
    env -0 >"$_environment"
    printf '%s\\0' "$PWD" "$@" >"$_asked"
    echo >&3
    read -r _code <&4
    return $_code
}
datapruner() { _forked datapruner "$@"; }
python() { _forked python "$@"; }
"""


class QuickTerminal(Terminal):
    """One in which our command, and a file given to Python, are not started: each is a process forked from
    one that has imported the libraries, which is most of what a start takes."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__(folder, environment)
        self._environment, self._asked = (self._log / f"{id(self)}.{end}" for end in ("environment", "asked"))
        self._write(f'_environment="{self._environment}" _asked="{self._asked}"\n{_ASKING}')

    def type(self, command: str) -> Said:
        out, err = self._give(command)
        while not (answer := self._answer().strip()):
            folder, program, *arguments = self._asked.read_text().split("\0")[:-1]
            environment = dict(
                line.split("=", 1) for line in self._environment.read_text().split("\0") if line
            )
            task = command_line if program == "datapruner" else python_file
            forked = Forked(task, arguments, folder, environment=environment, said=out, errors=err)
            self._write(f"{forked.wait()}\n")
        return Said(int(answer), out.read_text(), err.read_text())


@dataclass
class Tour:
    """Where it is typed. `serving` is the terminal of the service, `typing` the one of everything else."""

    folder: Path
    typing: Terminal
    serving: Terminal
    port: int = 8000
    """The service's, which it says when it starts."""
    done: int = 0

    def type(self, step: Step, instead: str | None = None) -> Said:
        """Type a step, or something `instead` of it; it must end well."""
        command = (instead or step.text).replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
        command = command.replace("wait=60", WAIT["Prefer"])  # on a busy machine
        if command.startswith("curl") and shutil.which("curl") is None:
            pytest.skip("needs curl")
        said = self.typing.type(command)
        assert said.code == 0, said
        return said

    def python(self, step: Step, then: str) -> Any:
        """Run a block of Python; the value of the expression `then` after it, through JSON."""
        code = f"{step.text}\nimport json\nprint(json.dumps({then}))\n"
        (self.folder / "block.py").write_text(code, encoding="utf-8")
        return json.loads(self.type(step, "python block.py").out.splitlines()[-1])

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The lines of a JSON lines file."""
        lines = (self.folder / name).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]
