"""What a benchmark found: figures, each with the baseline of the same run that it is a ratio of.

A script calls `figure` for each; `python -m benchmarks` makes one table of all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "BENCHMARK_FIGURES"
"""The environment variable that names the file to which figures are appended, one JSON object a line."""


@dataclass(frozen=True)
class Figure:
    """`value` of `what` and that of its baseline, both in `unit`; bounds, if any, are goals for the ratio."""

    what: str
    value: float
    against: str
    baseline: float
    unit: str = "s"
    at_most: float | None = None
    at_least: float | None = None

    @property
    def ratio(self) -> float:
        return self.value / self.baseline

    @property
    def goal(self) -> str:
        """The goal in words, and whether it was missed; empty where there is none."""
        bounds = (("at most", self.at_most), ("at least", self.at_least))
        words = " and ".join(f"{name} {bound:g}" for name, bound in bounds if bound is not None)
        return f"{words}: missed" if words and not self.reached else words

    @property
    def reached(self) -> bool:
        return (self.at_most is None or self.ratio <= self.at_most) and (
            self.at_least is None or self.ratio >= self.at_least
        )

    def __str__(self) -> str:
        goal = f"; goal {self.goal}" if self.goal else ""
        return (
            f"{self.what}: {shown(self.value)} {self.unit}, {shown(self.ratio)} x {self.against} "
            f"({shown(self.baseline)} {self.unit}){goal}"
        )


def figure(
    what: str,
    value: float,
    *,
    against: str,
    baseline: float,
    unit: str = "s",
    at_most: float | None = None,
    at_least: float | None = None,
) -> Figure:
    """Print a figure, and at once append it to the file that `BENCHMARK_FIGURES` names, if any."""
    found = Figure(what, float(value), against, float(baseline), unit, at_most, at_least)
    print(found, flush=True)
    if path := os.environ.get(FILE):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(found)) + "\n")
    return found


def read(path: Path) -> list[Figure]:
    """The figures in a file; none where it was not made."""
    if not path.exists():
        return []
    return [Figure(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def shown(value: float) -> str:
    """Three digits, or all of a whole number's thousands."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def markdown(found: Iterable[tuple[str, Figure]]) -> str:
    """The table of figures by script."""
    lines = ["| script | figure | value | baseline | value | ratio | goal |", "|---|---|--:|---|--:|--:|---|"]
    before = None
    for script, each in found:
        name = "" if script == before else f"`{script}`"
        before = script
        value, baseline = (f"{shown(number)} {each.unit}" for number in (each.value, each.baseline))
        cells = (name, each.what, value, each.against, baseline, shown(each.ratio), each.goal)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
