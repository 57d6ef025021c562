"""How many actors there is room for."""

from __future__ import annotations

import pytest

from datapruner.errors import UsageError
from datapruner.measuring.cluster.pool import Node, Pool, places_on, pool

CPU, GPU = Node(8, 0), Node(16, 4)


def test_a_place_is_every_gpu_or_else_every_node_with_processors() -> None:
    assert places_on([CPU, GPU, GPU]) == ("cuda",) * 8
    assert places_on([Node(0, 0), CPU, CPU]) == ("cpu",) * 2
    with pytest.raises(UsageError, match="neither GPUs nor CPUs"):
        places_on([Node(0, 0)])


def test_an_actor_on_a_gpu_reserves_no_processor_and_has_those_to_render_that_are_there() -> None:
    assert pool([GPU, GPU], ["cuda"] * 8, None, all_of_them=True) == Pool(8, 0, 1, renderers=3)
    assert pool([Node(4, 4)], ["cuda:0"], 2, all_of_them=True) == Pool(1, 0, 1, renderers=0)
    assert pool([Node(96, 1)], ["cuda"], None, all_of_them=True).renderers == 4


@pytest.mark.parametrize(
    ("nodes", "wanted", "share"),
    [
        ([CPU], 1, 7),  # one is left over
        ([CPU, CPU], 2, 7),
        ([CPU, CPU], 3, 4),  # two of them on one node
        ([CPU, Node(2, 0)], 2, 4),
        ([Node(1, 0)], 1, 1),  # nothing can be left over
        ([Node(2, 0), Node(2, 0)], 4, 1),
        ([Node(0, 0), Node(3, 0), Node(3, 0)], 2, 2),
    ],
)
def test_processors_are_shared_out_so_that_all_actors_fit(nodes: list[Node], wanted: int, share: int) -> None:
    assert pool(nodes, ["cpu"] * wanted, None, all_of_them=True) == Pool(wanted, share, 0)


def test_threads_that_are_set_are_what_an_actor_reserves() -> None:
    assert pool([CPU, CPU], ["cpu"] * 4, 4, all_of_them=True) == Pool(4, 4, 0)
    assert pool([CPU], ["tokeniser"] * 20, 4, all_of_them=False) == Pool(8, 1, 0)


def test_what_there_is_no_room_for_is_refused_or_what_fits_is_taken() -> None:
    with pytest.raises(
        UsageError, match="2 devices are asked for and the Ray cluster has room for 1 processes"
    ):
        pool([CPU], ["cpu"] * 2, 8, all_of_them=True)
    assert pool([CPU], ["cpu"] * 2, 8, all_of_them=False) == Pool(1, 8, 0)
    with pytest.raises(UsageError, match="9 devices are asked for and the Ray cluster has 8 GPUs"):
        pool([GPU, GPU], ["cuda"] * 9, None, all_of_them=True)
    assert pool([GPU], ["cuda"] * 9, None, all_of_them=False).size == 4
    with pytest.raises(UsageError, match="has 0 GPUs"):
        pool([CPU], ["cuda"], None, all_of_them=False)
