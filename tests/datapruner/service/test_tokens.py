"""The key of token digests, and the first token of a new service."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from datapruner.catalog import migrations
from datapruner.catalog.database import Database
from datapruner.service import tokens
from datapruner.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def db(settings: Settings) -> Iterator[Database]:
    migrations.upgrade(settings.database)
    database = Database(settings.database)
    yield database
    database.close()


def test_the_key_is_made_once_however_many_start_together(settings: Settings) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: tokens.load_key(settings), range(8)))
    [key] = keys
    assert len(key) == 64
    [file] = settings.home.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_key_that_is_set_leaves_no_file(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", secret="from the environment")
    assert tokens.load_key(settings) == b"from the environment"
    assert not settings.home.exists()


def test_an_empty_database_gets_one_token_and_a_used_one_none(settings: Settings, db: Database) -> None:
    key = tokens.load_key(settings)
    path = tokens.bootstrap(db, settings, key)
    assert path == settings.home / "admin-token"
    secret = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = tokens.authenticate(db, secret, key)
    assert token is not None
    assert token.scopes == ["read", "write", "sql", "admin"]
    assert tokens.bootstrap(db, settings, key) is None


def test_a_token_is_worth_nothing_with_another_key(settings: Settings, db: Database) -> None:
    path = tokens.bootstrap(db, settings, b"one key")
    assert path is not None
    secret = path.read_text().strip()
    assert tokens.authenticate(db, secret, b"one key") is not None
    assert tokens.authenticate(db, secret, b"another key") is None
    assert tokens.authenticate(db, secret + "x", b"one key") is None
    assert tokens.authenticate(db, "", b"one key") is None


def test_tokens_are_long_and_different() -> None:
    made = {tokens.issue() for _ in range(100)}
    assert len(made) == 100
    assert all(token.startswith("dpr_") and len(token) >= 47 for token in made)
