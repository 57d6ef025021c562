"""What one trained model was found to know of one held-out set: what the trainings yield, and what verdicts
are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """A held-out set as read by the model that one arm and seed trained.

    The rows of a set are the same and in the same order for all arms and seeds, so that they can be paired.
    """

    #: A run's id, or a control: "random", "longest" or "all".
    arm: str
    seed: int
    #: The set's name.
    held_out: str
    #: Of each row, the nats of its labelled tokens, summed.
    nll: npt.NDArray[np.float64]
    #: Of each row, its labelled tokens; at least one.
    tokens: npt.NDArray[np.int64]
    #: Of each row, whether the model wrote the right answer; None where the set has none.
    correct: npt.NDArray[np.bool_] | None = None

    @property
    def nats_per_token(self) -> float:
        """Over all labelled tokens of the set."""
        return float(self.nll.sum() / self.tokens.sum())
