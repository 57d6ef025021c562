"""Length: keep the longest responses, the baseline that is hard to beat (arXiv 2402.04833)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scorers.column import Column
from scorers.method import Columns, Options, Selection, sample_column
from scorers.selection.ranking import ranked_selection
from scorers.signals.columns import Signals

LENGTH = Column("length", "response tokens", kind="whole", unit="tokens", direction="high", at_least=0)


class Length:
    """Keep the ceil(share * N) samples with the most response tokens."""

    name = "length"
    title = "Longest responses"
    paper = "arXiv 2402.04833"
    options = Options
    presets: Mapping[str, Mapping[str, Any]] = {}
    columns: tuple[Column, ...] = (LENGTH, LENGTH.cut())

    def needs(self, options: Options) -> frozenset[str]:
        return frozenset({"n_response_tokens"})

    def scores(self, signals: Signals, options: Options, seed: int) -> Columns:
        return {"length": sample_column(signals, "n_response_tokens").astype(np.int64)}

    def token_scores(self, signals: Signals, options: Options) -> Columns:
        return {}

    def select(
        self, signals: Signals, scores: Columns, share: float, options: Options, seed: int
    ) -> Selection:
        length = np.asarray(scores["length"], dtype=np.float64)
        return ranked_selection(
            signals, length, share, among="response length among the highest", shown={"length": length}
        )
