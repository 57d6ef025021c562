"""The key of token digests: a setting, or a file with mode 0600 in the home folder.

Without it a stolen database can neither be read for tokens nor be given new ones.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from datapruner.settings import Settings


def load_key(settings: Settings) -> bytes:
    """The key of token digests: the setting, or the file in home, made when there is none."""
    if given := settings.secret.get_secret_value():
        return given.encode()
    path = settings.home / "secret"
    settings.home.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".secret.{secrets.token_hex(4)}")
    write_private(temporary, secrets.token_hex(32))
    try:
        os.link(temporary, path)  # unlike a rename, never replaces the key of a service that was quicker
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    return path.read_text(encoding="ascii").strip().encode()


def write_private(path: Path, text: str) -> None:
    """Write a new file that only its owner may read, through to the disk. Raises OSError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
