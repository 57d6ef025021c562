"""A score of one run against a score of another."""

from __future__ import annotations

from pydantic import Field

from datapruner.schemas.common import Answer, Request
from datapruner.schemas.reports import Scale


class AgainstAxis(Answer):
    """A score along one side, and the ascending edges of the cells along it."""

    column: str
    scale: Scale
    edges: list[float]


class Against(Answer):
    """Two runs' scores against each other: `samples[j][i]` in cell i along x and cell j along y."""

    x: AgainstAxis
    y: AgainstAxis
    samples: list[list[int]]


class AgainstAsked(Request):
    """Which score of the first run, along x, and of the second."""

    x: str = Field(max_length=200)
    y: str = Field(max_length=200)
