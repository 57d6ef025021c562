"""What a trainer's format is: what it writes, and what is said to whoever trains on it."""

from __future__ import annotations

import glob
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from datapruner.outputs.training_rows import TrainingRows

Note = Callable[[Path, TrainingRows], str]
"""The configuration to train on what was written to a path, ready to copy. Its rows are read: the counts are
whole."""


@dataclass(frozen=True, slots=True)
class AsFile:
    """A format that is one file with this suffix. `write` reads all the rows and puts them on a binary
    stream. `weights`: in words, how the trainer takes the weights of tokens; None where it cannot."""

    name: str
    suffix: str
    write: Callable[[BinaryIO, TrainingRows], None]
    note: Note
    weights: str | None = None


@dataclass(frozen=True, slots=True)
class AsFolder:
    """A format that is a folder. `write` reads all the rows and puts what it has to into an empty folder,
    which gets another name later: `note` is told that one. `packed`: its rows are packed to their
    limit, so there has to be one. `weights`: as of a file."""

    name: str
    write: Callable[[Path, TrainingRows], None]
    note: Note
    packed: bool = False
    weights: str | None = None


Trainer = AsFile | AsFolder


def quoted(text: str) -> str:
    """A text as a value in YAML, which does not put together what JSON makes of letters such as emoji."""
    return json.dumps(text, ensure_ascii=False)


def parquet_pattern(path: Path) -> str:
    """The Parquet file, or those in the folder, as `datasets` finds them: it takes paths for patterns."""
    place = glob.escape(str(path))
    return f"{place}/*.parquet" if path.is_dir() else place
