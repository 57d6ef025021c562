"""RDS+: the samples whose representation is most like that of rows of a target set (arXiv 2503.01807).

A sample's representation is the position-weighted mean of the proxy model's final hidden states,
`e = sum_i (i / (1 + ... + L)) h_i` over all L positions of the rendered sample, prompt and template included.
Its score is the largest cosine to a row of the target set; what is kept, the rows take in turn: each the
sample most like it of those that are left, until there are as many as asked for. Of several tasks, tasks
take turns, and within a task its rows do.

As in the authors' code (hamishivi/automated-instruction-selection): hidden states after the final norm, as
transformers gives them last; the conversation as a whole, target rows with their responses; unit vectors; no
centring. Notable choices that are ours:
- the proxy's own chat template stands for the Tulu template that they render every model's samples with, as
  everywhere here; nothing is appended, and lengths are the proxy's, not 2,048 tokens;
- a row whose best is gone takes its next best in the same turn; there, it loses the turn;
- of several tasks they rank each task's samples by the largest cosine and let tasks take turns
  (`pick=max`). Rows that take turns within their task are the rule of one task for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, option
from scorers.selection.aims import (
    BALANCE_HELP,
    NEAREST_ROW,
    NEAREST_TASK,
    TAKEN_AT,
    Aims,
    rows_of,
    selected,
)
from scorers.selection.influence import target_set
from scorers.selection.queries import nearest
from scorers.selection.vectors import UnitVectors
from scorers.signals.columns import WEIGHTED_HIDDEN, Signals

COSINE = Column(
    "rds",
    "largest cosine of the sample's position-weighted mean hidden state to a row's of the target set",
    direction="high",
    at_least=-1,
    at_most=1,
)


@dataclass(frozen=True, slots=True)
class RdsOptions(Options):
    pick: Literal["round-robin", "max"] = option(
        "round-robin",
        "each row of the target set in turn takes the sample most like it of those left; max: each task in "
        "turn takes the sample most like any of its rows, and one task alone the highest scores",
    )
    balance: Literal["tasks", "rows"] = option("tasks", BALANCE_HELP)


class Rds:
    """Exactly ceil(share * N) samples, which target rows took in turn."""

    name = "rds"
    title = "RDS+: most like a target set's rows by position-weighted hidden states, taken in turn"
    paper = "arXiv 2503.01807"
    options = RdsOptions
    presets: Mapping[str, Mapping[str, Any]] = {}
    columns: tuple[Column, ...] = (
        COSINE,
        NEAREST_ROW,
        NEAREST_TASK,
        TAKEN_AT,
        COSINE.cut(meaning="lowest that is kept"),
    )

    def needs(self, options: RdsOptions) -> frozenset[str]:
        return frozenset({WEIGHTED_HIDDEN, f"target:{WEIGHTED_HIDDEN}"})

    def scores(self, signals: Signals, options: RdsOptions, seed: int) -> Columns:
        """`rds`, and the row and task of the target set that it is the cosine to."""
        aims = _aims(signals, options)
        cosine, query = nearest(UnitVectors(signals, WEIGHTED_HIDDEN), aims.queries)
        return {"rds": cosine, **aims.columns(query)}

    def token_scores(self, signals: Signals, options: RdsOptions) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: RdsOptions, seed: int
    ) -> Selection:
        """threshold `rds`: the lowest score kept."""
        values = np.asarray(scores["rds"], dtype=np.float64)
        aims = _aims(signals, options)
        return selected(signals, WEIGHTED_HIDDEN, aims, values, share, name="rds", title="RDS+")


def _aims(signals: Signals, options: RdsOptions) -> Aims:
    return rows_of(
        target_set(signals), WEIGHTED_HIDDEN, balance=options.balance, together=options.pick == "max"
    )
