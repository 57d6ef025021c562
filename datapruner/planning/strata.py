"""Rows drawn over all lengths, and what they say of the rows that were not drawn.

Samples are sorted by size and cut into strata of about equal size in all, so that the few long rows that hold
half of a corpus are drawn as much as the many short ones. In each stratum some units (rows, or neighbours
that make a batch) are read, and

    total = sum over strata of (size of the stratum) x (what was read) / (size of what was read),

the separate ratio estimator of stratified sampling with its variance and finite-population correction
(Cochran 1977, Sampling Techniques, sections 6.10 and 6.11). Sizes are what is known of all rows: characters
where tokens are counted, tokens where seconds are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from datapruner.schemas.plans import Expected
from scorers.signals.columns import Floats, Ints

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Stratum:
    """Rows of about one size. rows, sizes: (n,), by size."""

    rows: Ints
    sizes: Ints

    @property
    def whole(self) -> float:
        """Their size together."""
        return float(self.sizes.sum())


@dataclass(frozen=True, slots=True)
class Read:
    """What was read of a stratum. whole: its size. sizes, values: (m,), of the units that were read."""

    whole: float
    sizes: Floats
    values: Floats

    @property
    def complete(self) -> bool:
        """Whether nothing of it was left unread."""
        return float(self.sizes.sum()) >= self.whole * (1 - 1e-12)


def strata(rows: NDArray[np.integer], sizes: NDArray[np.integer], count: int) -> list[Stratum]:
    """These rows, (N,), with their sizes over 0, (N,), in at most `count` strata of about equal size."""
    if not len(rows):
        return []
    order = np.lexsort((rows, sizes))
    ordered, sizes = np.asarray(rows, np.int64)[order], np.asarray(sizes, np.int64)[order]
    middle = np.cumsum(sizes) - sizes / 2
    number = np.minimum((middle * count / sizes.sum()).astype(np.int64), count - 1)
    cuts = np.flatnonzero(np.diff(number)) + 1
    return [Stratum(*part) for part in zip(np.split(ordered, cuts), np.split(sizes, cuts), strict=True)]


def drawn(stratum: Stratum, count: int, rng: np.random.Generator) -> Stratum:
    """`count` rows of it at random, or all if there are not so many."""
    n = len(stratum.rows)
    some = np.sort(rng.choice(n, min(count, n), replace=False))
    return Stratum(stratum.rows[some], stratum.sizes[some])


def clusters(stratum: Stratum, size: float) -> list[Stratum]:
    """Its rows in groups of neighbours, the longest first, as measuring makes batches of them: as many as
    have at most that size when each is padded to the longest, and one at least."""
    found: list[Stratum] = []
    end = len(stratum.rows)
    while end:
        start = max(0, end - max(1, int(size // stratum.sizes[end - 1])))
        found.append(Stratum(stratum.rows[start:end], stratum.sizes[start:end]))
        end = start
    return found


def total(read: Sequence[Read]) -> Expected:
    """The total over all strata, and its interval at `CONFIDENCE`; counted where all of each was read.

    A stratum of which one unit of several was read says nothing of its spread, and is taken to spread as the
    others do.
    """
    value = variance = known = 0.0
    freedom, unknown = 0, 0.0
    for part in read:
        ratio = part.values.sum() / part.sizes.sum()
        value += part.whole * ratio
        if part.complete:
            continue
        m = len(part.sizes)
        if m == 1:
            unknown += part.whole * ratio
            continue
        residuals = part.values - ratio * part.sizes
        mean = part.sizes.mean()
        unread = 1 - part.sizes.sum() / part.whole
        variance += (part.whole / mean) ** 2 * unread * float(residuals @ residuals) / (m - 1) / m
        known += part.whole * ratio
        freedom += m - 1
    if not freedom:
        return Expected(value=value, low=value - unknown, high=value + unknown)
    spread = math.sqrt(variance) * (1 + unknown / known if known else 1)
    margin = float(stdtrit(freedom, 0.5 + CONFIDENCE / 2)) * spread
    return Expected(value=value, low=max(0.0, value - margin), high=value + margin)
