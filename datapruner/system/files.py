"""How a file appears: whole and at once, or not at all.

What is not finished has a name by which it is known, should its process be killed: nobody reads it, and it
goes when it is a day old.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from datapruner.errors import UsageError

_UNFINISHED = ".unfinished-"
_DAY_SECONDS = 86_400.0


def check_place(path: Path) -> None:
    """Find out before the work starts that nothing can be made at `path`. Raises UsageError."""
    if not path.name:
        raise UsageError(f"{str(path)!r} has no name", remedy="name a file or folder in it")
    if path.parent.exists() and not path.parent.is_dir():
        raise UsageError(f"{path}: {path.parent} is a file", remedy="name a folder in its place")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist", remedy="create it first")


def check_file(path: Path) -> None:
    """`check_place` of a file, which may take the place of another. Raises UsageError."""
    check_place(path)
    if path.is_dir():
        raise UsageError(f"{path} is a folder", remedy="name a file")


def unfinished(path: Path) -> Path:
    """A new hidden name beside `path` for what is to become it."""
    return path.with_name(f"{_UNFINISHED}{secrets.token_hex(8)}{path.suffix}")


def is_unfinished(path: Path) -> bool:
    """Whether this is, by its name, what `unfinished` gave one to."""
    return path.name.startswith(_UNFINISHED)


def clear_unfinished(folder: Path) -> None:
    """Remove what has been unfinished anywhere below `folder` for more than a day."""
    limit = time.time() - _DAY_SECONDS
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *files) if is_unfinished(Path(name))):
            with suppress(OSError):  # gone meanwhile, or on a disk that refuses
                if path.stat().st_mtime < limit:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def publishing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that becomes `path` when the block ends well, and leaves no trace when it does not.

    It is made in the same folder, flushed to disk, then renamed. Raises OSError.
    """
    temporary = unfinished(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def publishing_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes `path` when the block ends well, and leaves no trace when it does not.

    Its files are flushed to disk before. `path` may be an empty folder. Raises OSError.
    """
    temporary = unfinished(path)
    try:
        temporary.mkdir()
        yield temporary
        for place, _, files in os.walk(temporary):
            for name in files:
                with (Path(place) / name).open("rb") as file:
                    os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Publish a small JSON file."""
    with publishing(path) as file:
        file.write(json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n")
