"""The machine that is asked for."""

from __future__ import annotations

import pytest

from datapruner.errors import UsageError
from datapruner.measuring import engine
from datapruner.measuring.cluster import executor
from datapruner.measuring.cluster.executor import Cluster
from datapruner.measuring.cluster.pool import Node
from datapruner.measuring.engine import machine_on


def test_devices_are_of_this_machine_unless_the_engine_is_ray() -> None:
    assert machine_on("cpu").cluster is None
    assert machine_on("cpu", "local").cluster is None
    ray = machine_on("cuda,cuda", "ray", "10.0.0.5:6379", token_budget=9)
    assert (ray.devices, ray.cluster, ray.token_budget) == (("cuda", "cuda"), Cluster("10.0.0.5:6379"), 9)
    assert machine_on("cpu", "ray", "").cluster == Cluster(None)


def test_a_cluster_is_asked_for_its_devices_only_where_none_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executor, "nodes", lambda cluster: [Node(4, 0), Node(4, 0)])
    assert machine_on("auto", "ray", "10.0.0.5:6379").devices == ("cpu", "cpu")
    assert machine_on("cpu", "ray", "10.0.0.5:6379").devices == ("cpu",)


def test_actors_are_of_one_kind() -> None:
    with pytest.raises(UsageError, match="on GPUs or on CPUs, not on both"):
        machine_on("cpu,cuda:0", "ray")


def test_an_address_that_nothing_reads_is_refused() -> None:
    engine.asked("ray", "auto")
    engine.asked(None, None)
    for other in (None, "local"):
        with pytest.raises(UsageError, match="would not be used") as refused:
            engine.asked(other, "auto")
        assert refused.value.field == "ray_address"
