"""A Ray cluster of three nodes on this machine: one that drives, and two that measure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_SMALL = {"object_store_memory": 80 << 20}
_SPARING = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    # A node that is gone refuses each look at it at once, one that is slow has ten seconds to answer each.
    "RAY_health_check_period_ms": "300",
}


@contextmanager
def two_nodes() -> Iterator[str]:
    """The address of the cluster, for as long as the block runs."""
    from ray.cluster_utils import Cluster

    before = {name: os.environ.get(name) for name in _SPARING}
    os.environ.update(_SPARING)
    try:
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **_SMALL}
        )
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1, **_SMALL)
            yield cluster.address
        finally:
            cluster.shutdown()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
