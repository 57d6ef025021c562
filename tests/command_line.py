"""Rows, settings and results of the tests that run the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = str(Path(sys.executable).with_name("datapruner"))

# Row 1 holds a control sequence and characters of several tokens, row 3 repeats row 0, row 4 is empty, row 5
# is longer than the limit below, row 7 is not JSON.
ROWS = (
    '{"instruction": "Name a colour.", "input": "", "output": "Blue is one of them."}',
    '{"instruction": "Count to three.", "input": "", "output": "One, \\u001b[31mtwo 你好 🎉 [bold]three."}',
    '{"instruction": "What is 2+2?", "input": "", "output": "Purple elephants dance."}',
    '{"instruction": "Name a colour.", "input": "", "output": "Blue is one of them."}',
    '{"instruction": "Say hi.", "input": "", "output": ""}',
    json.dumps({"instruction": "Repeat: " + "very " * 60, "input": "", "output": "No."}),
    '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}, '
    '{"role": "user", "content": "Bye"}, {"role": "assistant", "content": "See you later."}]}',
    '{"broken": ',
)
SETTINGS = ("--max-length", "64", "--overflow", "error")


@dataclass(frozen=True)
class PrunedHome:
    """`document` is what `prune --json` said; it and all files are of the same run."""

    home: Path
    rows: Path
    subset: Path
    document: dict[str, Any]

    @property
    def run(self) -> str:
        return str(self.document["run"])


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def installed(arguments: Sequence[str], home: Path, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run the installed `datapruner` in a process of its own."""
    environment = {**os.environ, "DATAPRUNER_HOME": str(home), "COLUMNS": "80"}
    environment.pop("FORCE_COLOR", None)
    return subprocess.run(
        [COMMAND, *arguments], capture_output=True, text=True, env=environment, check=False, **how
    )
