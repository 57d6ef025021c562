"""A run's samples over two columns of numbers: what a page draws, and the rows in a part of it.

Places are in the units that are drawn: the logarithm to base 10 where a scale is logarithmic.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import AfterValidator, Field

from datapruner.schemas.common import Answer, Request
from datapruner.schemas.reports import Scale
from datapruner.validation import matching

MOST_POINTS = 50_000
"""Samples that are drawn one by one; more are counted in cells."""
MOST_CORNERS = 200
_NUMBER = r"-?[0-9]{1,9}(\.[0-9]{1,9})?"


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("not a number")
    return value


Place = Annotated[float, AfterValidator(_finite)]


class Look(Request):
    """Which part of a plane. x, y, colour: columns; without x or y, those that `PlaneColumns` begins with.
    From x0 to x1 and from y0 to y1; without them, all."""

    x: str | None = Field(None, max_length=200)
    y: str | None = Field(None, max_length=200)
    colour: str = Field("status", max_length=200)
    x0: Place | None = None
    x1: Place | None = None
    y0: Place | None = None
    y1: Place | None = None


class Outline(Look):
    """The same, of that what is inside of a closed line; `after`: the row that the last page ended with."""

    outline: Annotated[
        str, *matching(rf"({_NUMBER},{_NUMBER}(;{_NUMBER},{_NUMBER}){{2,{MOST_CORNERS}}})?", "x,y;x,y;x,y…")
    ] = ""
    limit: int = Field(50, ge=1, le=500)
    after: int | None = Field(None, ge=0, lt=2**62)

    @property
    def corners(self) -> list[tuple[float, float]]:
        """None where there is no line."""
        places = (corner.split(",") for corner in self.outline.split(";") if corner)
        return [(float(x), float(y)) for x, y in places]


class PlaneAxis(Answer):
    """A column along one side, from its lowest to its highest number; `cuts`: the thresholds on it."""

    column: str
    text: str
    scale: Scale
    low: float
    high: float
    cuts: dict[str, float]


class Points(Answer):
    """N samples one by one. `colour`: numbers, null where there is none, or indices into `names`."""

    row: list[int]
    x: list[float]
    y: list[float]
    colour: list[float | None]


class Cells(Answer):
    """Samples counted in cells of equal size: `samples[j][i]` in cell i along x and cell j along y; `kept` of
    these."""

    samples: list[list[int]]
    kept: list[list[int]] | None


class PlaneView(Answer):
    """`samples`: how many are in this part. Either `points` or `cells` is there."""

    x: PlaneAxis
    y: PlaneAxis
    colour: str
    names: list[str] | None
    samples: int
    points: Points | None
    cells: Cells | None


class FoundRow(Answer):
    """A row in a part of a plane; of its conversation the beginnings of the prompt and of the response."""

    row: int
    status: str
    reason: str | None
    x: float
    y: float
    prompt: str | None
    response: str | None


class FoundRows(Answer):
    """`samples`: how many there are in all, each by its first row; `next`: the row after which to go on."""

    samples: int
    kept: int
    rows: list[FoundRow]
    next: int | None


class PlaneColumns(Answer):
    """The columns that can be drawn along a side, and those that can colour, with what they mean."""

    numbers: dict[str, str]
    names: dict[str, str]
    x: str
    y: str
