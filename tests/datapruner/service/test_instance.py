"""Whether the service says that it is ready."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from datapruner.errors import NotReadyError
from datapruner.service import instance
from datapruner.service.instance import Service
from datapruner.service.stopping import Stopping
from datapruner.settings import Settings


def test_a_service_that_starts_with_its_machine_is_not_ready_before_it_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance, "time", SimpleNamespace(monotonic=lambda: 0.5))  # since the machine started
    settings = Settings(home=tmp_path / "home", sql_warm=0)
    with (
        closing(Service.open(settings, Stopping())) as service,
        pytest.raises(NotReadyError, match="the database is at revision none"),
    ):
        service.check()
