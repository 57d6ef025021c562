"""The machine to measure on, as it is asked for: devices of this one, or a Ray cluster."""

from __future__ import annotations

from typing import Any

from datapruner.errors import UsageError
from datapruner.measuring.cluster import executor
from datapruner.measuring.cluster.executor import Cluster
from datapruner.measuring.cluster.pool import places_on
from datapruner.measuring.devices import find_devices
from datapruner.measuring.measure import Machine
from datapruner.request.config import Engine


def machine_on(
    device: str = "auto", engine: Engine | None = None, ray_address: str | None = None, **settings: Any
) -> Machine:
    """The machine with these `settings` of `Machine`.

    `device` as for `find_devices`; of a Ray cluster a place for each actor, with "auto" every GPU, or else
    the processors of every node. `ray_address` as for `Cluster`.

    Raises UsageError for no device or address, and WorkerError when the cluster has to be asked and does not
    answer.
    """
    if engine != "ray":
        return Machine(find_devices(device), **settings)
    cluster = Cluster(ray_address or None)
    executor.check(cluster)
    if device == "auto" and cluster.address is not None:
        return Machine(places_on(executor.nodes(cluster)), cluster=cluster, **settings)
    devices = find_devices(device)
    if len({each.partition(":")[0] for each in devices}) > 1:
        raise UsageError("actors are on GPUs or on CPUs, not on both", remedy="name one kind", field="device")
    return Machine(devices, cluster=cluster, **settings)


def asked(engine: Engine | None, ray_address: str | None) -> None:
    """Raise UsageError for an address that nothing would read."""
    if ray_address is not None and engine != "ray":
        raise UsageError(
            "the address of a Ray cluster is given, and it would not be used",
            remedy="give the engine ray as well, or leave the address out",
            field="ray_address",
        )
