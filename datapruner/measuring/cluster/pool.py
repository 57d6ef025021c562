"""How many actors a cluster has room for, and what each of them reserves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datapruner.errors import UsageError

MOST_RENDERERS = 4
TOKENISER = "tokeniser"
"""A place without a model."""


@dataclass(frozen=True, slots=True)
class Node:
    """What a living node of the cluster has."""

    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True)
class Pool:
    """A fixed number of actors. cpus, gpus: that each reserves. renderers: processes that render for each."""

    size: int
    cpus: int
    gpus: int
    renderers: int = 0


def pool(nodes: Sequence[Node], places: Sequence[str], threads: int | None, *, all_of_them: bool) -> Pool:
    """The actors for these places: one each, or as many as there is room for where not `all_of_them` must be.

    An actor on a GPU reserves no processor, so that whatever else Ray runs always finds one. On processors it
    reserves `threads` of them, by default as many as each of all can have with one left over.

    Raises UsageError when there is no room for one, or not for all.
    """
    wanted = len(places)
    if places[0].startswith("cuda"):
        gpus, cpus = sum(int(node.gpus) for node in nodes), sum(node.cpus for node in nodes)
        size = _checked(wanted, gpus, f"{gpus} GPUs", all_of_them)
        spare = int(cpus / gpus) - 1
        return Pool(size, 0, 1, max(0, min(spare, MOST_RENDERERS)))
    share = 1 if places[0] == TOKENISER else threads or _share(nodes, wanted)
    room = _room(nodes, share)
    size = _checked(wanted, room, f"room for {room} processes of {share} CPUs each", all_of_them)
    return Pool(size, share, 0)


def places_on(nodes: Sequence[Node]) -> tuple[str, ...]:
    """Every GPU of the cluster, or else a place for each node with processors. Raises UsageError."""
    gpus = sum(int(node.gpus) for node in nodes)
    found = gpus or sum(node.cpus >= 1 for node in nodes)
    if not found:
        raise UsageError(
            "the Ray cluster has neither GPUs nor CPUs", remedy="add nodes to it", field="engine"
        )
    return ("cuda" if gpus else "cpu",) * found


def _share(nodes: Sequence[Node], wanted: int) -> int:
    """The most processors that so many actors can have each, one of all left over, and no fewer than one."""
    total = int(sum(node.cpus for node in nodes))
    most = max((total - 1) // wanted, 1)
    return next((share for share in range(most, 1, -1) if _room(nodes, share) >= wanted), 1)


def _room(nodes: Sequence[Node], share: int) -> int:
    """How many actors of so many processors there is room for."""
    return sum(int(node.cpus) // share for node in nodes)


def _checked(wanted: int, room: int, there_is: str, all_of_them: bool) -> int:
    if room < (wanted if all_of_them else 1):
        raise UsageError(
            f"{wanted} devices are asked for and the Ray cluster has {there_is}",
            remedy="name fewer devices, such as cpu,cpu, or add nodes",
            field="devices",
        )
    return min(wanted, room)
