"""Rows to train on that every trainer's format is tried with, and what is to be trained on of them.

They are the corpus of `tests.tiny_model`: one turn and several, a system prompt, text beyond ASCII, a row at
the model's limit. The masks are what trainers get wrong: pruned end tokens behind trained ones, end tokens
alone, and tokens here and there.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datapruner.outputs.training_rows import IGNORED, Counts, TrainingBatch, TrainingRows
from tests.tiny_model import LINES, MEASURED, messages_of, rendered

Row = tuple[tuple[int, ...], tuple[int, ...]]
"""The token ids and labels of a row."""

LIMIT = 30
"""Tokens, past which some rows go on, and some have all that is trained on."""


def kept(tokenizer: Any) -> list[Row]:
    """All rows, before any limit."""
    some, rows = random.Random(5), []
    for number, line in enumerate(LINES[row] for row in MEASURED):
        assert isinstance(line, dict)
        ids, response = rendered(tokenizer, messages_of(line))
        ends = [at for at in response if ids[at] == tokenizer.eos_token_id]
        trained = {
            0: response,
            1: [at for at in response if at not in ends],
            2: ends or response,
            3: [at for at in response if some.random() < 0.5] or response,
        }[number % 4]
        rows.append((tuple(ids), tuple(token if at in trained else IGNORED for at, token in enumerate(ids))))
    return rows


def within(rows: list[Row], limit: int) -> list[Row]:
    """What is left of rows that are cut, where a token to train on is."""
    cut = [(ids[:limit], labels[:limit]) for ids, labels in rows]
    return [row for row in cut if set(row[1]) != {IGNORED}]


def weights_of(labels: Sequence[int]) -> NDArray[np.float32]:
    """Weights for the tokens of a row that are trained on, all unlike, and 0 for the others."""
    trained = np.array(labels) != IGNORED
    return (trained / (np.arange(len(labels)) + 2)).astype(np.float32)


def training_rows(
    rows: list[Row], model: str, max_length: int | None = None, *, weighted: bool = False
) -> TrainingRows:
    """The rows as formats are given them, in two batches; `weighted` with `weights_of` each."""
    parts = [part for part in (rows[:7], rows[7:]) if part]

    def batch(part: list[Row]) -> TrainingBatch:
        return TrainingBatch(
            sample_ids=[f"{at}" for at in range(len(part))],
            lengths=np.array([len(ids) for ids, _ in part], dtype=np.int64),
            input_ids=np.concatenate([np.array(ids, dtype=np.int32) for ids, _ in part]),
            labels=np.concatenate([np.array(labels, dtype=np.int32) for _, labels in part]),
            token_weights=np.concatenate([weights_of(labels) for _, labels in part]) if weighted else None,
        )

    counts = Counts(weighted=weighted)
    return TrainingRows(lambda: map(batch, parts), model, {"run": "cases"}, max_length, counts=counts)
