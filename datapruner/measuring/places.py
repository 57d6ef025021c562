"""Where samples are in the shards of the signal cache, looked up once, and their columns read from there.

Notable choices:
- columns of a whole corpus are read in the order in which they stand on disk, some thousand samples at a
  time, and put where they belong: memory is that of the result and of one part;
- of a long shard only the stretch between the first and the last line wanted is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from scorers.signals.columns import Ints

_LINES_AT_ONCE = 16_384


@dataclass(frozen=True, slots=True)
class Places:
    """Where each of N samples is: its shard, (N,) numbers in `shards`, and its line there, (N,).

    heights: (shards,) lines of each shard.
    """

    shards: Sequence[Path]
    heights: Ints
    shard: Ints
    line: Ints

    def __len__(self) -> int:
        return len(self.shard)

    def part(self, start: int, stop: int) -> Places:
        """The samples from `start` to before `stop`."""
        return Places(self.shards, self.heights, self.shard[start:stop], self.line[start:stop])

    def columns(self, names: Sequence[str]) -> pl.DataFrame:
        """These columns of all samples, in their order."""
        order = np.lexsort((self.line, self.shard))
        frame = self._read(order, names)
        if np.array_equal(order, np.arange(len(order))):
            return frame
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return frame[back]

    def blocks(self, names: Sequence[str]) -> Iterator[tuple[Ints, pl.DataFrame]]:
        """All samples in the order of the disk, some at a time: their numbers, (n,), and these columns."""
        order = np.lexsort((self.line, self.shard))
        start = 0
        for stop in self._stops():
            yield order[start:stop], self._read(order[start:stop], names)
            start = stop

    def _stops(self) -> Iterator[int]:
        """Where to stop reading for a while: how many samples on disk stand before."""
        counts = np.bincount(self.shard, minlength=len(self.shards))
        stop = lines = 0
        for number in np.flatnonzero(counts):
            count, height = int(counts[number]), int(self.heights[number])
            if lines and lines + height > _LINES_AT_ONCE:
                yield stop
                lines = 0
            if height > _LINES_AT_ONCE:
                yield from range(stop + _LINES_AT_ONCE, stop + count, _LINES_AT_ONCE)
            stop, lines = stop + count, lines + height
        if stop:
            yield stop

    def _read(self, order: Ints, names: Sequence[str]) -> pl.DataFrame:
        """These columns of samples that follow each other on disk."""
        numbers, first, which = np.unique(self.shard[order], return_index=True, return_inverse=True)
        lines, heights = self.line[order], self.heights[numbers]
        long = heights > _LINES_AT_ONCE
        begin = np.where(long, lines[first], 0)
        end = np.where(long, lines[np.append(first[1:], len(order)) - 1] + 1, heights)
        parts = []
        if not long.all():  # many at once, which is faster
            shards = [self.shards[number] for number in numbers[~long]]
            parts.append(pl.read_parquet(shards, columns=list(names), glob=False))
        for number in np.flatnonzero(long):
            scan = pl.scan_parquet(self.shards[numbers[number]], glob=False).select(names)
            parts.append(scan.slice(int(begin[number]), int(end[number] - begin[number])).collect())
        # what was read: first the short shards, then the long ones
        starts, turn = np.empty_like(begin), np.argsort(long, kind="stable")
        starts[turn] = np.cumsum((end - begin)[turn]) - (end - begin)[turn]
        at = starts[which] + lines - begin[which]
        frame = pl.concat(parts)
        return frame if np.array_equal(at, np.arange(len(frame))) else frame[at]


def flatten(lists: pl.Series) -> NDArray[Any]:
    """The values of a list column, one after another."""
    return lists.explode(empty_as_null=False, keep_nulls=False).to_numpy()
