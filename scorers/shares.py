"""How many a share of N is: 0.07 * 100 is 7.000000000000001 in floating point, and 7 is meant."""

from __future__ import annotations

import math


def check_share(share: float) -> None:
    """Raise ValueError unless 0 < share <= 1."""
    if not 0 < share <= 1:
        raise ValueError(f"keep share is {share!r}: allowed is a number over 0 and at most 1")


def tolerant_floor(x: float) -> int:
    """floor(x), where x a rounding error below a whole number counts as that number (0.29 * 100)."""
    return math.floor(x + _slack(x))


def tolerant_ceil(x: float) -> int:
    """ceil(x), where x a rounding error above a whole number counts as that number (0.07 * 100)."""
    return math.ceil(x - _slack(x))


def _slack(x: float) -> float:
    return max(1e-9, 1e-14 * abs(x))


def count_to_keep(share: float, n: int) -> int:
    """ceil(share * n), at least 1 (0 only when there are no samples).

    Raises ValueError unless 0 < share <= 1.
    """
    check_share(share)
    return min(n, max(1, tolerant_ceil(share * n)))
