"""A pytest plugin: a disk of a few megabytes that can be filled up or made read-only."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

SIZE = 16 << 20


class Disk:
    """A mounted file system of `SIZE` bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._has_room = threading.Event()
        self._filling: threading.Thread | None = None

    def fill(self) -> None:
        """Leave not a byte free until `relieve`, whatever is deleted meanwhile: services sweep, too."""
        self.stop_filling()
        self._take_what_is_free()
        self._has_room.clear()
        self._filling = threading.Thread(target=self._stay_full)
        self._filling.start()

    def protect(self) -> None:
        """Refuse every change from now on, to root as well."""
        _mount("-o", "remount,ro", str(self.path))

    def relieve(self) -> None:
        """Writable again, with room."""
        self.stop_filling()
        _mount("-o", "remount,rw", str(self.path))
        (self.path / "filler").unlink(missing_ok=True)

    def stop_filling(self) -> None:
        """What is free from now on stays so."""
        self._has_room.set()
        if self._filling is not None:
            self._filling.join()
            self._filling = None

    def _stay_full(self) -> None:
        while not self._has_room.wait(0.01):
            self._take_what_is_free()

    def _take_what_is_free(self) -> None:
        with contextlib.suppress(OSError), (self.path / "filler").open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder))
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small disk needs the right to mount a tmpfs (run as root)")
    disk = Disk(folder)
    try:
        yield disk
    finally:
        disk.stop_filling()
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)
