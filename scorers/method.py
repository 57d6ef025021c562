"""What a pruning method is: signals in, scores and masks out. Each method is one file beside this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from scorers.signals import Bools, Signals

Columns = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Option:
    """Metadata of one option field, shown by `datapruner methods` and in schemas."""

    help: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Which samples, and which of their tokens, are kept.

    keep: (N,). reason: (N,) indices into `reasons`, one for every sample, kept or not.
    token_keep: (M,) flat like the token signals; a pruned token stays in the input and only loses its
    loss. True wherever the method does not prune tokens; meaningful for kept samples only.
    thresholds: the cuts that decided, by name, for the report. columns: per-sample columns (N,) that only
    exist once a keep share is known (Q-Tuning's quadrant).
    """

    keep: Bools
    reason: NDArray[np.int64]
    reasons: tuple[str, ...]
    token_keep: Bools
    thresholds: Mapping[str, float] = field(default_factory=dict)
    columns: Columns = field(default_factory=dict)


OptionsT = TypeVar("OptionsT")


class Method(Protocol[OptionsT]):
    """One way to read the signals. Stateless; the same inputs and seed give the same arrays."""

    name: str
    title: str
    paper: str
    needs: frozenset[str]
    """Signals read, as "nll" for a sample signal and "token:nll" for a token signal."""
    options: type[OptionsT]
    presets: Mapping[str, Mapping[str, Any]]
    """Published settings: name -> {"keep": share, option: value, ...}."""

    def scores(self, signals: Signals, options: OptionsT, seed: int) -> Columns:
        """Per-sample score columns (N,), independent of any keep ratio."""
        ...

    def token_scores(self, signals: Signals, options: OptionsT) -> Columns:
        """Per-token score columns (M,), {} for methods without token scores."""
        ...

    def select(
        self, signals: Signals, scores: Columns, share: float, options: OptionsT, seed: int
    ) -> Selection:
        """Choose about `share` (0 < share <= 1) of the N samples, at least one.

        `scores` is what `scores()` gave for the same signals, options and seed.
        """
        ...
