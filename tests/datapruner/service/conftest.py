"""What tests of the service have: its database, for those with its `settings`; or a worker's `context`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from datapruner.catalog import migrations
from datapruner.catalog.database import Database
from datapruner.catalog.models import Project
from datapruner.measuring.workers.local import IdleWorkers
from datapruner.request.config import Measuring, MethodChoice, RunConfig
from datapruner.request.keep import Keep
from datapruner.service.context import Context
from datapruner.settings import Settings
from tests.datapruner.service.jobs_here import opened


@pytest.fixture
def db(settings: Settings) -> Iterator[Database]:
    migrations.upgrade(settings.database)
    db = Database(settings.database)
    yield db
    db.close()


@pytest.fixture
def context(tmp_path: Path, tiny_folder: Path, idle: IdleWorkers) -> Iterator[Context]:
    home = tmp_path / "home"
    home.mkdir()
    with opened(home, [tiny_folder, tmp_path / "imports"], idle) as made:
        with made.db.write() as session:
            session.add(Project(id="prj_1", name="default"))
        yield made


@pytest.fixture
def config(tiny_folder: Path) -> RunConfig:
    return RunConfig(
        measuring=Measuring(model=str(tiny_folder)),
        methods=[MethodChoice(name="qtuning", options={"token_keep": 0.5})],
        keep=Keep(share=0.5),
    )
