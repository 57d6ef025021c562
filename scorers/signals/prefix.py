"""The opening that samples of a batch share, computed once.

Most rows of an instruction corpus begin with the same system prompt; on short samples that is a quarter of
the tokens. Its keys and values do not depend on what follows, so one row of them serves the whole batch.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

SHORTEST = 8
"""A shorter common opening is not worth a second call of the model."""


def shared_length(ids: Sequence[NDArray[np.int32]], limit: int) -> int:
    """Tokens with which every sequence begins, at most `limit`; 0 when they are too few to matter."""
    first = ids[0][:limit]
    for other in ids[1:]:
        differs = first != other[: len(first)]
        if differs.any():
            first = first[: int(differs.argmax())]
    return len(first) if len(ids) > 1 and len(first) >= SHORTEST else 0


class PrefixStates:
    """Runs a backbone over batches with a common opening; keeps the last opening's keys and values."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._opening: NDArray[np.int32] | None = None
        self._cache: Any = None

    def states(self, input_ids: Tensor, opening: NDArray[np.int32]) -> Tensor:
        """Final hidden states of what follows the opening (P): input_ids (B, L) -> (B, L - P, D).

        input_ids is right-padded, and every row begins with the opening.
        """
        shared = len(opening)
        if self._opening is None or not np.array_equal(self._opening, opening):
            self._cache = self.model.base_model(
                input_ids=input_ids[:1, :shared], use_cache=True
            ).past_key_values
            self._opening = opening.copy()
        cache = copy.copy(self._cache)  # the calls below put others in place of its tensors
        cache.layers = [copy.copy(layer) for layer in self._cache.layers]
        cache.batch_repeat_interleave(len(input_ids))
        states: Tensor = self.model.base_model(
            input_ids=input_ids[:, shared:], past_key_values=cache, use_cache=True
        ).last_hidden_state
        return states
