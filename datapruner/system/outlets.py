"""Standard output and error that outlive their readers.

`datapruner ... | head -1` closes the pipe while the command still writes. What a command did, and so its exit
code, does not depend on who reads what it says: the rest goes nowhere. A file that cannot take the text, as
on a full disk, is an error as ever.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

_NAMES = {1: "standard output", 2: "standard error"}


class _Outlet(io.FileIO):
    """A standard stream that leads nowhere once it could not be written."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            self._lead_nowhere()
            return len(data)
        except BlockingIOError:
            raise
        except OSError as error:
            self._lead_nowhere()  # what is still buffered would fail again, at the very end
            raise OSError(error.errno, error.strerror, _NAMES[self.fileno()]) from error

    def _lead_nowhere(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


@contextmanager
def outliving_readers() -> Iterator[None]:
    """Let both streams outlive their readers while the block runs; they are flushed at its end.

    Raises OSError naming the stream that cannot be written. Characters that a stream's encoding lacks are
    escaped. One that was closed from the start leads nowhere.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = before


def _lasting(stream: TextIO | None) -> TextIO:
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):
        return stream  # another program's own
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if not isinstance(raw, io.FileIO) or raw.fileno() not in _NAMES:
        return stream
    outlet: Any = _Outlet(raw.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        outlet if raw is stream.buffer else io.BufferedWriter(outlet),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
