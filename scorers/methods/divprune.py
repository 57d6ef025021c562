"""DivPrune: the most spread out samples, by greedy max-min distance of their embeddings (arXiv 2503.02175).

The distance of two samples is 1 - cosine. The first pick is the sample farthest from its nearest neighbour,
each next one the sample farthest from the nearest pick. Picks for a smaller share are the first picks for a
larger one.

Notable choices:
- the same picks as the plain greedy loop, without its N multiplications a pick: a sample's distance to the
  picks only ever falls, so a stale one bounds it from above, and only samples whose bound is still among the
  highest are compared with the picks they have not seen, many at a time in one matrix product;
- likewise the first pick: samples drop out once some other sample is nearer to them than the most isolated
  sample found so far is to any;
- the paper prunes the visual tokens of one image, a few hundred of them; samples of a corpus are ours, and
  each pick may have to be compared with all of them. Up to 100,000 samples (`parts=0`) that is done. More are
  divided into k-means groups, so many that each has some thousand picks, and picked within each; of the picks
  of all parts those count that were farthest from the ones before them. Samples of different parts are not
  compared, so that two near each other may both be kept where the border of two parts is between them
  (figures in benchmarks/README.md). `first="outermost"` spares the search for the most isolated sample;
- distances are float32; two that differ by rounding alone may count as different.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option
from scorers.selection.clusters import kmeans
from scorers.selection.ranking import all_tokens
from scorers.selection.vectors import Rows, UnitVectors, blocks
from scorers.shares import count_to_keep
from scorers.signals.columns import Bools, Ints, Signals, Vectors

_EXACT = 100_000  # samples that are compared with all picks unless told otherwise
_PICKS_OF_PART, _ROWS_OF_PART = 1024, 32_768  # of a part, about so many at most
_LARGEST = 4  # times as many rows as the mean part has, at most
_BLOCK = 512  # candidates brought up to date at once
_PICKS_AT_ONCE = 4096  # picks that a block is multiplied with at once: bounds the memory of the product
_WIDEST = 4096  # samples that all those left are compared with before some of them drop out
_LIKELY = 16  # samples whose nearest neighbour is looked up outright, to raise the bar for the others
_ROUNDING = np.float32(1e-5)  # more than two float32 products of unit vectors can differ by


DISTANCE = Column(
    "divprune_distance",
    "1 - cosine to the nearest earlier pick, 2 for the first; NaN if not kept",
    "selection",
    at_least=0,
    at_most=2,
)


@dataclass(frozen=True, slots=True)
class DivPruneOptions(Options):
    embedding: Literal["mean_hidden", "sentence_embedding"] = option(
        "mean_hidden", "what a sample's place is: the proxy's mean hidden state or a sentence embedding"
    )
    first: Literal["isolated", "outermost"] = option(
        "isolated",
        "the first pick: the sample farthest from its nearest neighbour, as in the paper, or, much sooner "
        "found, the one farthest from the mean direction",
    )
    parts: int = option(
        0,
        "k-means groups that samples are picked within; 1: the paper's picks, quadratic work; 0: one for up "
        "to 100,000 samples, and then one for about every thousand picks",
        at_least=0,
    )


class DivPrune:
    """Keep the ceil(share * N) samples that greedy max-min distance picks, of more than 100,000 samples
    within k-means groups (`parts`). Of 100,000 made-up samples and a quarter kept, groups keep 65 % of the
    exact picks (chance: 25 %), a sample is 1 % farther from the nearest that is kept, and of near copies
    1.3 % are kept beside their originals, where the exact picks keep 0.01 %.
    """

    name = "divprune"
    title = "DivPrune: the most diverse samples by greedy max-min distance"
    paper = "arXiv 2503.02175"
    options = DivPruneOptions
    presets: Mapping[str, Mapping[str, Any]] = {"share-9.8": {"keep": 0.098}}
    columns: tuple[Column, ...] = (
        Column(
            "divprune_pick", "place among the picks from 0, -1 if not kept", "selection", "whole", at_least=-1
        ),
        DISTANCE,
        DISTANCE.cut(meaning="least of the distances: no two kept samples are closer"),
    )

    def needs(self, options: DivPruneOptions) -> frozenset[str]:
        return frozenset({options.embedding})

    def scores(self, signals: Signals, options: DivPruneOptions, seed: int) -> Columns:
        """None: how far a sample is from the others kept is only known once they are picked."""
        return {}

    def token_scores(self, signals: Signals, options: DivPruneOptions) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: DivPruneOptions, seed: int
    ) -> Selection:
        """Besides the masks: `divprune_pick`, the place of a kept sample among the picks from 0, -1 for the
        others, and `divprune_distance`, its distance to the picks before it (2, the largest, of the first
        pick), NaN for the others. With several parts, both are within the part.

        threshold `divprune_distance`: the least of these distances, so that no two samples kept (of a part)
        are closer.
        """
        n = len(signals)
        count = count_to_keep(share, n)
        rows = UnitVectors(signals, options.embedding)
        begin = most_isolated if options.first == "isolated" else outermost
        place, distance = np.full(n, -1, dtype=np.int64), np.full(n, np.nan)
        for part, picks, distances in _picked(rows, count, _part_count(n, count, options.parts), begin, seed):
            found = rows.order[part[picks]]
            place[found], distance[found] = np.arange(len(picks)), distances
        keep: Bools = place >= 0
        return Selection(
            keep=keep,
            reason=np.where(keep, 0, 1),
            reasons=(
                f"DivPrune: among the most spread out {100 * share:.6g} %",
                f"DivPrune: closer to a kept sample than the most spread out {100 * share:.6g} %",
            ),
            token_keep=all_tokens(signals),
            thresholds={"divprune_distance": float(distance[keep].min())} if count else {},
            columns={"divprune_pick": place, "divprune_distance": distance},
        )


def _part_count(n: int, count: int, wanted: int) -> int:
    """How many parts: as many as wanted, or so many that the work grows as n does."""
    if wanted == 0 and n > _EXACT:
        wanted = max(-(-count // _PICKS_OF_PART), -(-n // _ROWS_OF_PART))
    return max(1, min(wanted, count))


def _picked(
    rows: UnitVectors, count: int, parts: int, begin: Callable[[Vectors], int], seed: int
) -> Iterator[tuple[Ints, Ints, Rows]]:
    """(rows, picks, distances) of each part: its rows, and the picks among them that are kept, by their
    numbers there, with their distances, `count` in all.

    All picks of distance over that of the last one kept are kept, of those at it the ones of the first parts.
    """
    if parts == 1:
        picks, distances = farthest_first(rows, count, begin(rows) if count else 0)
        yield np.arange(rows.shape[0]), picks, distances
        return
    divided = _divided(rows, parts, seed)
    found = [_greedy(rows, part, max(1, count * len(part) // rows.shape[0]), begin) for part in divided]
    while True:
        every = np.concatenate([distances for _, distances in found])
        cut = np.partition(every, len(every) - count)[len(every) - count] if len(every) >= count else -np.inf
        short = [  # the next pick may be one of those kept
            at
            for at, (picks, distances) in enumerate(found)
            if len(picks) < len(divided[at]) and distances[-1] > cut
        ]
        if not short:
            break
        for at in short:
            found[at] = _greedy(rows, divided[at], min(2 * len(found[at][0]), len(divided[at])), begin)
    ties = count - int((every > cut).sum())
    for part, (picks, distances) in zip(divided, found, strict=True):
        over, at_cut = int((distances > cut).sum()), int((distances == cut).sum())
        kept = over + min(at_cut, ties)
        ties -= kept - over
        yield part, picks[:kept], distances[:kept]


def _greedy(rows: UnitVectors, part: Ints, count: int, begin: Callable[[Vectors], int]) -> tuple[Ints, Rows]:
    vectors = rows[part]
    return farthest_first(vectors, count, begin(vectors))


def _divided(rows: UnitVectors, parts: int, seed: int) -> list[Ints]:
    """The rows of each part, ascending, at least one; a group far larger than the others is several parts."""
    group, _ = kmeans(rows, parts, seed)
    order, sizes = np.argsort(group, kind="stable"), np.bincount(group)
    most = max(_LARGEST * -(-len(group) // parts), 1)
    return [
        part
        for members in np.split(order, np.cumsum(sizes)[:-1])
        for part in np.array_split(members, max(1, -(-len(members) // most)))
        if len(part)
    ]


def farthest_first(rows: Vectors, count: int, first: int) -> tuple[Ints, Rows]:
    """(picks, distances), each (count,): row numbers in the order picked, and how far each was at that time.

    rows: (N, D) float32 of unit length. 0 <= count <= N. `first` is picked first, at distance 2, the largest
    there is. At equal distance the smaller row number is picked. O(N count D) at worst; memory
    O(N + count D) beside the rows.
    """
    n, width = rows.shape
    picks, distances = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.float32)
    if count == 0:
        return picks, distances
    picked = np.empty((count, width), dtype=np.float32)
    picks[0], distances[0], picked[0] = first, 2, rows[np.array([first])]
    bound = np.full(n, 2, dtype=np.float32)  # at least the distance to the nearest pick; -inf for picks
    bound[first] = -np.inf
    seen = np.zeros(n, dtype=np.int64)  # picks that the bound takes account of
    done = 1
    while done < count:
        block, bar, next_row = _highest(bound, _BLOCK)
        _bring_up_to_date(rows, block, picked[:done], bound, seen)
        able = (bound[block] > bar) | ((bound[block] == bar) & (block < next_row))
        rivals, far = block[able], bound[block[able]]
        vectors = rows[rivals]
        between = 1 - vectors @ vectors.T
        while done < count and len(rivals):
            at = int(np.argmax(far))
            if far[at] < bar or (far[at] == bar and rivals[at] > next_row):
                break
            picks[done], distances[done], picked[done] = rivals[at], far[at], vectors[at]
            np.minimum(far, between[at], out=far)
            far[at] = -np.inf
            done += 1
        bound[rivals], seen[rivals] = far, done
    return picks, distances


def _highest(bound: Rows, count: int) -> tuple[Ints, float, int]:
    """(block, bar, row): the `count` rows of the highest bounds, ascending, ties by smaller row; and of the
    others the highest bound, with the smallest row that has it."""
    n = len(bound)
    if count >= n:
        return np.arange(n), -np.inf, n
    cut = np.partition(bound, n - count)[n - count]
    above, level = np.flatnonzero(bound > cut), np.flatnonzero(bound == cut)
    taken, left = np.split(level, [count - len(above)])
    block = np.sort(np.concatenate([above, taken]))
    if len(left):
        return block, float(cut), int(left[0])
    others = np.flatnonzero(bound < cut)
    best = others[np.argmax(bound[others])]
    return block, float(bound[best]), int(best)


def _bring_up_to_date(rows: Vectors, block: Ints, picked: Rows, bound: Rows, seen: Ints) -> None:
    """Compare the samples in `block` with the picks that they have not seen, in place."""
    late = block[seen[block] < len(picked)]
    late = late[np.argsort(seen[late], kind="stable")]
    for part in np.array_split(late, max(1, len(late) // 128)):  # of like age: few comparisons twice
        if not len(part):
            continue
        vectors, nearest = rows[part], bound[part]
        for start in range(int(seen[part[0]]), len(picked), _PICKS_AT_ONCE):
            cosine = vectors @ picked[start : start + _PICKS_AT_ONCE].T
            np.minimum(nearest, 1 - cosine.max(axis=1), out=nearest)
        bound[part], seen[part] = nearest, len(picked)


def outermost(rows: Vectors) -> int:
    """The row farthest from the mean of all rows in direction, the first of several. rows: (N, D), N >= 1."""
    total = sum(block.sum(axis=0, dtype=np.float64) for _, block in blocks(rows))
    mean = (total / rows.shape[0]).astype(np.float32)
    return int(np.argmin(np.concatenate([block @ mean for _, block in blocks(rows)])))


def most_isolated(rows: Vectors) -> int:
    """The row farthest from its nearest neighbour, the first of several. rows: (N, D), length 1, N >= 1."""
    n = rows.shape[0]
    nearest = np.full(n, 2, dtype=np.float32)  # at least the distance to the nearest neighbour
    alive, start, width = np.arange(n), 0, _BLOCK
    while start < n:
        others = np.arange(start, min(start + width, n))
        compared = rows[others]
        for part in np.array_split(alive, max(1, len(alive) * len(others) // (1 << 23))):
            cosine = rows[part] @ compared.T
            inside = np.flatnonzero((part >= start) & (part < start + len(others)))
            cosine[inside, part[inside] - start] = -1
            nearest[part] = np.minimum(nearest[part], 1 - cosine.max(axis=1))
        start, width = start + len(others), min(2 * width, _WIDEST)
        likely = alive[np.argsort(-nearest[alive], kind="stable")[:_LIKELY]]
        bar = (1 - _nearest_cosine(rows, likely)).max()
        alive = alive[nearest[alive] >= bar - _ROUNDING]
    return int(alive[np.argmax(nearest[alive])])


def _nearest_cosine(rows: Vectors, some: Ints) -> Rows:
    """Of some rows the cosine to their nearest neighbour among all, (len(some),)."""
    vectors, nearest = rows[some], np.full(len(some), -1, dtype=np.float32)
    for at, block in blocks(rows):
        cosine = vectors @ block.T
        inside = np.flatnonzero((some >= at[0]) & (some <= at[-1]))
        cosine[inside, some[inside] - at[0]] = -1
        np.maximum(nearest, cosine.max(axis=1), out=nearest)
    return nearest
