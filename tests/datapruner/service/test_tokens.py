"""Tokens recognised by their digest, and the first one of a new service."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from datapruner.catalog.database import Database
from datapruner.errors import UsageError
from datapruner.service import tokens
from datapruner.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def test_an_empty_database_gets_one_token_and_a_used_one_none(settings: Settings, db: Database) -> None:
    key = b"a key"
    path = tokens.bootstrap(db, settings, key)
    assert path == settings.home / "admin-token"
    secret = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    caller = tokens.authenticate(db, secret, key, "req_1")
    assert caller is not None
    assert caller.scopes == {"read", "write", "sql", "admin"}
    assert caller.request_id == "req_1"
    assert tokens.bootstrap(db, settings, key) is None


def test_services_that_start_at_once_make_one_token_and_one_file(tmp_path: Path, database: Database) -> None:
    homes = [Settings(home=tmp_path / str(number)) for number in range(4)]
    with ThreadPoolExecutor(len(homes)) as pool:
        made = [path for path in pool.map(lambda home: tokens.bootstrap(database, home, b"k"), homes) if path]
    assert list(tmp_path.glob("*/admin-token")) == made
    assert len(made) == 1
    assert tokens.authenticate(database, made[0].read_text().strip(), b"k") is not None


def test_a_service_with_another_key_is_told_at_once(settings: Settings, db: Database) -> None:
    tokens.bootstrap(db, settings, b"one key")
    with pytest.raises(UsageError, match="another key") as refused:
        tokens.bootstrap(db, settings, b"another key")
    assert "DATAPRUNER_SECRET" in str(refused.value.remedy)


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
