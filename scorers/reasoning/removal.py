"""In which order the steps of a chain of thought go so that what is left meets a budget, and not much less.

Steps go from the lowest score up. One that would leave less than the budget by more than a small step is
passed over, for smaller ones behind it; if those do not do, the smallest of what is left goes. So the budget
is kept, and missed by a small step, unless every step left is larger.

Notable choices:
- a small step is one of the trace's median size. Without that allowance a step that is one token too large
  would stay, and several that the score puts above it would go;
- where a step needs another (`scorers.reasoning.coherence`), the other cannot go before it; steps that need
  each other go together, at the place of the one that would go last;
- of equal scores, or sizes, the earlier step goes first. The last one stays, whatever its size: reasoning
  that is opened and closed again teaches not to reason.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from scorers.signals.columns import Ints

Needs = Mapping[int, Iterable[int]]
"""By step: other steps that it makes no sense without."""


def removal_order(
    order: NDArray[np.intp], size: Ints, budget: int, needs: Needs | None = None
) -> list[list[int]]:
    """All steps in the order in which they go, in groups that go together; the last group would be the last.

    order: (K,) steps from the lowest score up. size: (K,) tokens of each with the gap behind it. The caller
    goes as far as the budget of what is left asks for: beyond that, the smallest go first.
    """
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    groups, needed, needers = _grouped(len(order), needs or {})
    sizes = [int(size[group].sum()) for group in groups]
    small = float(np.median(sizes)) if groups else 0.0
    left = sum(sizes)
    gone: list[int] = []
    waiting = [(int(rank[group].max()), at) for at, group in enumerate(groups) if not needers[at]]
    passed: list[int] = []
    heapq.heapify(waiting)

    def free(at: int) -> Iterable[int]:
        """Groups that can go now that this one has gone."""
        for other in needed[at]:
            needers[other] -= 1
            if not needers[other]:
                yield other

    while waiting and left > budget:
        _, at = heapq.heappop(waiting)
        if left - sizes[at] < budget - small:
            passed.append(at)
            continue
        gone.append(at)
        left -= sizes[at]
        for other in free(at):
            heapq.heappush(waiting, (int(rank[groups[other]].max()), other))
    rest = [(sizes[at], at) for at in (*passed, *(at for _, at in waiting))]
    heapq.heapify(rest)
    while rest:
        _, at = heapq.heappop(rest)
        gone.append(at)
        for other in free(at):
            heapq.heappush(rest, (sizes[other], other))
    return [groups[at] for at in gone]


def _grouped(count: int, needs: Needs) -> tuple[list[list[int]], list[set[int]], list[int]]:
    """Steps that need each other as groups, in the order of their first; the groups that each group needs;
    by how many others each is needed."""
    pairs = [(step, other) for step, others in needs.items() for other in others]
    if not pairs:
        return [[step] for step in range(count)], [set() for _ in range(count)], [0] * count
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), np.int8), np.array(pairs).T), shape=(count, count))
    _, label = connected_components(graph, directed=True, connection="strong")
    members: dict[int, list[int]] = {}
    for step, name in enumerate(label.tolist()):
        members.setdefault(name, []).append(step)
    place = {name: at for at, name in enumerate(members)}
    needed: list[set[int]] = [set() for _ in members]
    for step, other in pairs:
        if label[step] != label[other]:
            needed[place[int(label[step])]].add(place[int(label[other])])
    needers = [0] * len(members)
    for others in needed:
        for at in others:
            needers[at] += 1
    return list(members.values()), needed, needers
