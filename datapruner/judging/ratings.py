"""What came of having samples rated. Needs none of the libraries that asking takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from scorers.signals.columns import Signals


@dataclass(frozen=True, slots=True)
class Ratings:
    """What came of it. scores: by need, by sample id. errors: sample id -> why it has no rating."""

    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)

    def onto(self, signals: Signals) -> Signals:
        """The signals with the ratings beside them; every sample has to be rated."""
        ids = signals.ids.tolist()
        columns = {
            need: np.array([scores[sample_id] for sample_id in ids], dtype=np.float64)
            for need, scores in self.scores.items()
        }
        return replace(signals, samples={**signals.samples, **columns})
