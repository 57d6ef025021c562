"""Where to cut a ranking of more values than stand in memory: which value has exactly so many above it.

Notable choices:
- values are read some at a time, and as often as it takes: once where there are few, and of many three or
  four times, each narrowing down which digits the cut begins with, until those that begin so are few;
- the digits are those of the number as a sortable integer, so that the cut is a value that occurs, to the
  last bit, and not an estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from scorers.signals.columns import Bools, Floats, Ints

Keys = NDArray[np.uint64]

_FEW = 1 << 20  # values sorted in memory
_DIGIT, _BITS = 16, 64
_SIGN = np.uint64(1 << 63)


def nth_highest(values: Callable[[], Iterator[Floats]], count: int, rank: int) -> float:
    """The value that is the `rank`-th highest, from 1 on, of all `count`.

    values: begins to read them, some at a time, float64; none is NaN.
    """
    prefix, bits, left = 0, 0, rank
    while count > _FEW and bits < _BITS:
        shift = np.uint64(_BITS - bits - _DIGIT)
        counts = np.zeros(1 << _DIGIT, dtype=np.int64)
        for part in values():
            digits = (_beginning(_keys(part), prefix, bits) >> shift).astype(np.int64) & ((1 << _DIGIT) - 1)
            counts += np.bincount(digits, minlength=1 << _DIGIT)
        taken = np.cumsum(counts[::-1])
        at = int(np.searchsorted(taken, left))
        digit = len(counts) - 1 - at
        left -= int(taken[at] - counts[digit])
        count = int(counts[digit])
        prefix, bits = prefix << _DIGIT | digit, bits + _DIGIT
    if bits == _BITS:
        return _value(prefix)
    rest = np.concatenate([_beginning(_keys(part), prefix, bits) for part in values()])
    return _value(int(np.partition(rest, len(rest) - left)[len(rest) - left]))


def first_in_turn(each: Ints, order: Ints, count: int) -> tuple[Bools, int, int]:
    """Who of N gets `count` in all where all get what they have, (N,), in this order: (N,) who gets it all,
    and who comes next, and how many that one gets of its own; -1 and 0 where nothing is left."""
    taken = np.cumsum(each[order])
    whole = int(np.searchsorted(taken, count, side="right"))
    chosen = np.zeros(len(each), dtype=np.bool_)
    chosen[order[:whole]] = True
    left = count - (int(taken[whole - 1]) if whole else 0)
    return (chosen, int(order[whole]), left) if left else (chosen, -1, 0)


def _keys(values: Floats) -> Keys:
    """Integers that sort as the values do."""
    bits = (np.asarray(values, dtype=np.float64) + 0.0).view(np.uint64)  # one zero of two
    keys: Keys = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return keys


def _value(key: int) -> float:
    bits = np.array([key], dtype=np.uint64)
    return float(np.where(bits & _SIGN, bits ^ _SIGN, ~bits).view(np.float64)[0])


def _beginning(keys: Keys, prefix: int, bits: int) -> Keys:
    """Those whose first bits are these."""
    return keys[keys >> np.uint64(_BITS - bits) == np.uint64(prefix)] if bits else keys
