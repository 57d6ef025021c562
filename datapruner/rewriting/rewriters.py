"""The seam between a run that rewrites and the methods: what a rewriter is given, and what it gives back.

Notable choices:
- three kinds, told apart by what they need of a run: the proxy model's signals (`SignalRewriter`), a teacher
  (`TeacherRewriter`), which is asked about many rows at once, or the text alone (`TextRewriter`);
- a rewriter sees one row at a time and nothing of the others, so that no row can change another's outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from datapruner.rewriting.outcomes import Rewritten
from datapruner.rewriting.reasoning import ReasoningRow


@dataclass(frozen=True, slots=True)
class MeasuredReasoning:
    """What the proxy model said of a row's response: T tokens, in order.

    start, end: (T,) characters of the reasoning that each token covers; below 0 before it, beyond its length
    behind it. nll: (T,) -ln p, nats. n_truncated: tokens of the response past the longest length, unmeasured.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    nll: NDArray[np.float32]
    n_truncated: int


class SignalRewriter(Protocol):
    """A rewriter that reads the proxy model's signals."""

    def rewrite(self, row: ReasoningRow, measured: MeasuredReasoning) -> Rewritten: ...


class TextRewriter(Protocol):
    """A rewriter that needs a row alone."""

    def rewrite(self, row: ReasoningRow) -> Rewritten: ...


class TeacherRewriter(Protocol):
    """A rewriter that asks a teacher. What it raises of TeacherError becomes the row's error; one that has a
    `close` is closed at the end of the run."""

    async def rewrite(self, row: ReasoningRow, teacher: Any) -> Rewritten: ...


Rewriter = SignalRewriter | TextRewriter | TeacherRewriter

Counter = Callable[[str], int]
"""Tokens of a text."""


class Settings(BaseModel):
    """Base of a rewriter's options."""

    model_config = ConfigDict(extra="forbid", frozen=True)
