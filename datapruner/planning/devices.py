"""GPUs that a forecast may be for: their published peaks, and how long they would take by those.

Nothing of it is measured. The peaks are the makers' for dense products of 16-bit numbers (their data sheets;
those that count sparsity are halved), and what part of that a pass reaches is assumed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from datapruner.errors import UsageError

PEAK_TFLOPS: Mapping[str, float] = {
    "T4": 65,
    "V100": 125,
    "A10": 125,
    "L4": 121,
    "L40S": 362,
    "A100": 312,
    "H100": 989,
    "H200": 989,
    "B200": 2250,
    "RTX3090": 71,
    "RTX4090": 165,
    "MI300X": 1307,
}
"""TFLOP/s of one of each, in its largest form (SXM where there is one)."""
UTILISATION = 0.3
"""The part of its peak that a GPU is taken to reach, unless it is said otherwise."""
_ASKED = re.compile(r"(?:(\d{1,6})\s*[xX*]\s*)?([A-Za-z][A-Za-z0-9]*)|(\d{1,6})")


@dataclass(frozen=True, slots=True)
class Gpus:
    """So many devices of a kind; without a kind, of that of this machine."""

    count: int
    kind: str | None


def parse(given: str) -> Gpus:
    """`8xH100`, `H100` or `8`. Raises UsageError."""
    found = _ASKED.fullmatch(given.strip())
    if found is not None:
        count, kind, alone = found.groups()
        number = int(count or alone or 1)
        known = {name.lower(): name for name in PEAK_TFLOPS}
        if number and (kind is None or kind.lower() in known):
            return Gpus(number, None if kind is None else known[kind.lower()])
    raise UsageError(
        f"gpus: {given!r} is not a number of GPUs of a known kind",
        remedy=f"such as 8xH100, or 4 for those of this machine; known are {', '.join(PEAK_TFLOPS)}",
        field="gpus",
    )


def hours(flops: float, gpus: Gpus, utilisation: float) -> float:
    """How long these take so many operations, by their peak."""
    assert gpus.kind is not None, "of a kind with a peak"
    return flops / (gpus.count * PEAK_TFLOPS[gpus.kind] * 1e12 * utilisation) / 3600


def said(gpus: Gpus, utilisation: float) -> str:
    """What that figure is made of."""
    assert gpus.kind is not None, "of a kind with a peak"
    peak = f"{PEAK_TFLOPS[gpus.kind]:,g} TFLOP/s"
    return f"not measured: {100 * utilisation:g} % of the published {peak} is assumed"
