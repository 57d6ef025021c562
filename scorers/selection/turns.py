"""Taking turns: each asker in turn takes the sample that it is most like, of those that are left.

The rule is that of a double loop: for every turn, the asker whose turn it is looks at every sample that is
left, takes the one of highest cosine, of equals the one of the smallest id, and the next asker comes. Nobody
loses a turn because others were faster. RDS+ (arXiv 2503.01807) calls it round-robin; in its authors' code an
asker whose best is gone already does lose that turn.

Notable choices:
- askers stand in groups, the tasks: groups take turns, and within a group its askers do, so that a task of
  ten rows gets as many samples as one of a thousand;
- no table of all samples by all askers is ever there. An asker has a list of the best that were left when it
  was made, as long as it can need, or as its part of a few numbers for each sample allows. One whose list is
  used up is given a new one of what is left then, and so is everyone of whose list less than half is left:
  each look at the samples serves many turns, and to take a share s by A askers, however alike they are, takes
  s * A / 2 looks at most, and as a rule one or two;
- askers that are alike use up their lists together. The first look notes the largest cosine that each sample
  has to anyone; later ones begin with the samples where it is largest, and are over for an asker when it is
  below the last of its list. What askers like alike is found among the first few, without a look at the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from scorers.selection.queries import Cosines, Queries
from scorers.selection.vectors import UnitVectors
from scorers.signals.columns import Ints

Places = NDArray[np.int32]

_ENTRIES = 4
"""Of all lists together, for each sample."""
_FEWEST_ENTRIES = 1 << 20
_WINDOW = 32
_FIRST_LOOK = 256


@dataclass(frozen=True, slots=True)
class Taken:
    """Samples in the order in which they were taken: their numbers, who took each, and its cosine, (B,)."""

    samples: Ints
    asker: Ints
    cosine: Cosines


def take_turns(
    samples: UnitVectors,
    queries: Queries,
    groups: Sequence[Ints],
    budget: int,
    *,
    entries: int | None = None,
) -> Taken:
    """The first `budget` samples (at most N) that are taken.

    groups: the askers of each, in the order of their turns. entries: of all lists together, by default four
    for each sample; they decide memory and time alone.
    """
    n = samples.shape[0]
    entries = entries or max(_ENTRIES * n, _FEWEST_ENTRIES)
    lists = _Lists(samples, queries, max(1, entries // queries.askers))
    taken, askers = np.empty(budget, dtype=np.int64), np.empty(budget, dtype=np.int64)
    cosines = np.empty(budget, dtype=np.float32)
    turns = _turns(groups)
    for at in range(budget):
        asker = next(turns)
        taken[at], cosines[at] = lists.take(asker, budget - at)
        askers[at] = asker
    return Taken(samples.order[taken], askers, cosines)


def _turns(groups: Sequence[Ints]) -> Iterator[int]:
    """Whose turn it is, for ever."""
    for round_ in count():
        for group in groups:
            yield int(group[round_ % len(group)])


class _Lists:
    """What each asker would take next, best first. Samples are known by their place in the order of ids."""

    def __init__(self, samples: UnitVectors, queries: Queries, longest: int) -> None:
        self._samples, self._queries, self._longest = samples, queries, longest
        self._gone = np.zeros(samples.shape[0], dtype=np.bool_)
        self._lists = [_Best(0) for _ in range(queries.askers)]
        self._at = [0] * queries.askers
        self._largest: Cosines | None = None
        self._by_largest: Places = np.empty(0, dtype=np.int32)

    def take(self, asker: int, wanted: int) -> tuple[int, float]:
        """The best that is left, of which there is one, and its cosine. wanted: samples that all askers
        together still take."""
        while True:
            best, at = self._lists[asker].place, self._at[asker]
            while at < len(best):
                gone = self._gone[best[at : at + _WINDOW]]
                skipped = int(gone.argmin())
                if not gone[skipped]:
                    at += skipped
                    self._at[asker] = at + 1
                    self._gone[best[at]] = True
                    return int(best[at]), float(self._lists[asker].cosine[at])
                at += len(gone)
            self._at[asker] = at
            self._renew(min(wanted, self._longest))

    def _renew(self, length: int) -> None:
        """Give every asker whose list is half used up one of so many of those that are left."""
        left = [int((~self._gone[best.place]).sum()) for best in self._lists]
        due = [a for a, best in enumerate(self._lists) if 2 * left[a] <= len(best.place)]
        for asker in due:
            self._lists[asker], self._at[asker] = _Best(length), 0
        if self._largest is None:
            self._largest = self._look_at_all(due)
        else:
            if not len(self._by_largest):
                self._by_largest = np.argsort(-self._largest, kind="stable").astype(np.int32)
            self._look(np.array(due), length, self._largest)
        for asker in due:
            self._lists[asker].close()

    def _look_at_all(self, due: Sequence[int]) -> Cosines:
        """Show every sample to all askers; the largest cosine of each."""
        largest = np.empty(len(self._gone), dtype=np.float32)
        for rows, cosines in self._queries.cosines(self._samples, np.arange(len(self._gone))):
            largest[rows] = cosines.max(axis=1)
            for asker in due:
                self._lists[asker].see(rows.astype(np.int32), cosines[:, asker])
        return largest

    def _look(self, due: Ints, length: int, largest: Cosines) -> None:
        """Show the samples that are left to these askers, as far as they can come into their lists."""
        left = self._by_largest[~self._gone[self._by_largest]].astype(np.int64)
        queries, start, size = self._queries.of(due), 0, max(_FIRST_LOOK, length)
        while start < len(left) and len(due):
            for rows, cosines in queries.cosines(self._samples, left[start : start + size]):
                for at, asker in enumerate(due.tolist()):
                    self._lists[asker].see(rows, cosines[:, at])
            start += size
            size *= 2
            if start < len(left):
                most = np.nextafter(largest[left[start]], np.float32(np.inf))
                open_ = [asker for asker in due.tolist() if self._lists[asker].last() <= most]
                if len(open_) < len(due):
                    due = np.array(open_, dtype=np.int64)
                    queries = self._queries.of(due) if open_ else queries


class _Best:
    """The so many samples of highest cosine among those seen, of equals those of the smallest places."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._floor = np.float32(-np.inf)
        self._parts: list[tuple[Places, Cosines]] = []
        self._held = 0
        self.place: Places = np.empty(0, dtype=np.int32)
        self.cosine: Cosines = np.empty(0, dtype=np.float32)

    def see(self, places: Places, cosines: Cosines) -> None:
        """More samples."""
        over = cosines >= self._floor  # what ties may have a smaller place
        self._parts.append((places[over], cosines[over]))
        self._held += len(self._parts[-1][0])
        if self._held > 2 * self._length:
            self._shorten()

    def last(self) -> np.float32:
        """The cosine of the last of a list that is full, below all where it is not."""
        if self._held >= self._length:
            self._shorten()
        return self._floor

    def _shorten(self) -> None:
        self.close()
        self._parts, self._held = [(self.place, self.cosine)], len(self.place)
        self._floor = self.cosine[-1]

    def close(self) -> None:
        """Make `place` and `cosine`, best first."""
        place = np.concatenate([part[0] for part in self._parts])
        cosine = np.concatenate([part[1] for part in self._parts])
        by_place = np.argsort(place, kind="stable")
        best = by_place[np.argsort(-cosine[by_place], kind="stable")[: self._length]]
        self.place, self.cosine, self._parts = place[best], cosine[best], []
