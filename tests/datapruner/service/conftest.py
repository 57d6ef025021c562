"""The database of a service, for tests that have its `settings`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from datapruner.catalog import migrations
from datapruner.catalog.database import Database
from datapruner.settings import Settings


@pytest.fixture
def db(settings: Settings) -> Iterator[Database]:
    migrations.upgrade(settings.database)
    db = Database(settings.database)
    yield db
    db.close()
