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
- the paper prunes the visual tokens of one image, a few hundred of them; samples of a corpus are ours. Where
  its picks take too long, `parts` divides the corpus at random and picks within each part, and
  `first="outermost"` spares the search for the most isolated sample (figures in benchmarks/README.md);
- distances are float32; two that differ by rounding alone may count as different.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option
from scorers.selection.ranking import all_tokens, draws
from scorers.selection.vectors import Rows, UnitVectors, blocks
from scorers.shares import count_to_keep
from scorers.signals.columns import Bools, Ints, Signals, Vectors

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
        1,
        "divide the samples at random into so many parts and pick within each; 1: the paper's picks",
        at_least=1,
    )


class DivPrune:
    """Keep the ceil(share * N) samples that greedy max-min distance picks."""

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
        order = rows.order
        begin = most_isolated if options.first == "isolated" else outermost
        place, distance = np.full(n, -1, dtype=np.int64), np.full(n, np.nan)
        for part, part_count in _parts(signals.ids[order], count, options.parts, seed):
            vectors: Vectors = rows if options.parts == 1 else rows[part]
            picks, distances = farthest_first(vectors, part_count, begin(vectors) if part_count else 0)
            place[order[part[picks]]] = np.arange(part_count)
            distance[order[part[picks]]] = distances
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


def _parts(ids: NDArray[np.str_], count: int, parts: int, seed: int) -> Iterator[tuple[Ints, int]]:
    """(rows, picks to make among them) of each part. Parts differ by one row at most, and by one pick."""
    n = len(ids)
    shuffled = np.argsort(draws(ids, seed), kind="stable") if parts > 1 else np.arange(n)
    before = 0
    for part in np.array_split(shuffled, min(parts, max(1, n))):
        after = before + len(part)
        yield np.sort(part), count * after // max(1, n) - count * before // max(1, n)
        before = after


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
