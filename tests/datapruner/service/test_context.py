"""What a worker measures by: the engine of the run, or that of its settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from datapruner.catalog.database import Database
from datapruner.measuring.cluster.executor import Cluster
from datapruner.measuring.workers.local import IdleWorkers
from datapruner.request.config import Engine
from datapruner.service.context import Context
from datapruner.service.storage import open_storage
from datapruner.settings import load


@pytest.mark.parametrize(
    ("set_to", "asked", "on_ray"),
    [("local", None, False), ("local", "ray", True), ("ray", None, True), ("ray", "local", False)],
)
def test_a_run_is_measured_where_it_says_or_where_the_worker_is_set_to(
    set_to: Engine, asked: Engine | None, on_ray: bool, tmp_path: Path
) -> None:
    settings = load(home=tmp_path, engine=set_to, ray_address="head:6379", devices="cuda,cuda", threads=3)
    db = Database(settings.database)
    storage = open_storage(settings.files, tmp_path / "cache")
    machine = Context(settings, db, storage, ("cpu",), IdleWorkers()).machine(asked)
    db.close()
    assert machine.cluster == (Cluster("head:6379") if on_ray else None)
    assert machine.devices == (("cuda", "cuda") if on_ray else ("cpu",))
    assert (machine.threads, machine.models) == (3, tmp_path)
