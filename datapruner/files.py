"""How a small file appears: whole, durable and at once, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def publishing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that becomes `path` when the block ends well, and leaves no trace when it does not.

    It is made in the same folder under a hidden name, flushed to disk, then renamed. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
