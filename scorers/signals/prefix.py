"""The opening that samples of a batch share, computed once.

Most rows of an instruction corpus begin with the same system prompt; on short samples that is a quarter of
the tokens. Its keys and values do not depend on what follows, so one row of them serves the whole batch.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class _Opening:
    """What is kept of an opening (P): its tokens, their keys and values, their final states (1, P, D)."""

    ids: NDArray[np.int32]
    cache: Any
    states: Tensor


class PrefixStates:
    """Runs a backbone over batches with a common opening; keeps what it made of the last one."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._kept: _Opening | None = None

    def states(self, input_ids: Tensor, opening: NDArray[np.int32]) -> tuple[Tensor, Tensor]:
        """Final hidden states of the opening (P) and of what follows it: input_ids (B, L) -> (1, P, D) and
        (B, L - P, D).

        input_ids is right-padded, and every row begins with the opening.
        """
        shared, kept = len(opening), self._kept
        if kept is None or not np.array_equal(kept.ids, opening):
            said = self.model.base_model(input_ids=input_ids[:1, :shared], use_cache=True)
            kept = self._kept = _Opening(opening.copy(), said.past_key_values, said.last_hidden_state)
        cache = copy.copy(kept.cache)  # the calls below put others in place of its tensors
        cache.layers = [copy.copy(layer) for layer in kept.cache.layers]
        cache.batch_repeat_interleave(len(input_ids))
        states: Tensor = self.model.base_model(
            input_ids=input_ids[:, shared:], past_key_values=cache, use_cache=True
        ).last_hidden_state
        return kept.states, states
