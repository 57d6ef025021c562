"""The rows of a run that are most like one of them."""

from __future__ import annotations

from typing import Literal

from datapruner.schemas.common import Answer


class NearestRow(Answer):
    """A row by its place in the input; of its conversation the beginnings of a prompt and of a response."""

    row: int
    status: str
    cosine: float
    prompt: str | None
    response: str | None


class NearestRows(Answer):
    """The most alike first, of `samples` that were compared by their `vectors`: sentence embeddings, or the
    proxy model's mean hidden states."""

    vectors: Literal["sentence_embedding", "mean_hidden"]
    samples: int
    rows: list[NearestRow]
