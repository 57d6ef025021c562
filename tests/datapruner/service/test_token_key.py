"""The key of token digests: of a setting or of a file, made once."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from datapruner.service.token_key import load_key
from datapruner.settings import Settings


def test_the_key_is_made_once_however_many_start_together(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: load_key(settings), range(8)))
    [key] = keys
    assert len(key) == 64
    [file] = settings.home.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_key_that_is_set_leaves_no_file(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", secret="from the environment")
    assert load_key(settings) == b"from the environment"
    assert not settings.home.exists()
