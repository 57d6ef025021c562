"""Made-up signals of the right shape and range, for whatever columns are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scorers.column import Column
from scorers.signals.columns import (
    ALIGNED_VIEWS,
    DERIVED_SIGNALS,
    SAMPLE_SIGNALS,
    TOKEN_SIGNALS,
    VECTOR_SIGNALS,
    Ints,
    Signals,
    corpus_settings,
    needs_by_view,
)

WIDTH, PROJECTION, TARGETS, PROMPT, VOCABULARY = 576, 512, 1000, 40, 49_152
"""Of a vector, as of SmolLM2-135M's hidden states, and of a projection; rows of a target; prompt tokens;
tokens that the model knows."""


def signals_for(
    needs: Iterable[str], rows: int, tokens_per_row: int, vectors: str = "random", seed: int = 0
) -> Signals:
    """Signals of `rows` samples with all that is needed, views included.

    Each sample has one turn of about `tokens_per_row` response tokens (log-normal), an end token last.
    """
    wanted = needs_by_view(needs)
    others = {
        view: _signals(
            names, TARGETS if view not in ALIGNED_VIEWS else rows, tokens_per_row, vectors, [seed, i]
        )
        for i, (view, names) in enumerate(sorted(wanted.items()), start=1)
        if view
    }
    return _signals(wanted[""], rows, tokens_per_row, vectors, [seed, 0], others)


def _signals(
    names: Iterable[str],
    rows: int,
    tokens_per_row: int,
    vectors: str,
    seed: list[int],
    others: dict[str, Signals] | None = None,
) -> Signals:
    common = np.random.default_rng(seed[0])  # ids and lengths are those of every aligned view
    drawn = common.lognormal(0, 0.6, rows) * tokens_per_row / 1.2
    lengths = np.clip(drawn, 1, 40 * tokens_per_row).astype(np.int64)
    ids = np.array([f"{i:032x}" for i in common.permutation(rows)], dtype=np.str_)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rng = np.random.default_rng(seed)
    found: tuple[dict[str, Any], dict[str, Any], dict[str, Any]] = ({}, {}, {})
    samples, tokens, wide = found
    for name in sorted(names):
        token = name.removeprefix("token:")
        if name in VECTOR_SIGNALS:
            width = PROJECTION if name == "head_grad_projection" else WIDTH
            wide[name] = vectors_of(rows, width, vectors, int(rng.integers(2**31)))
        elif token != name:
            tokens[token] = _of_tokens(TOKEN_SIGNALS[token], lengths, offsets, rng)
        elif name in DERIVED_SIGNALS:
            largest = rows // 2 if name == "prompt" else 1
            samples[name] = rng.integers(0, max(1, largest), rows) + (49_152 if name == "vocabulary" else 0)
        elif corpus_settings(name) is not None:  # what a teacher or another model says
            samples[name] = rng.normal(size=rows)
        else:
            samples[name] = _of_samples({**SAMPLE_SIGNALS, **DERIVED_SIGNALS}[name], lengths, rng)
    return Signals(ids, samples, tokens, offsets, wide, others or {})


def _of_samples(column: Column, lengths: Ints, rng: np.random.Generator) -> NDArray[Any]:
    match column.name:
        case "n_tokens":
            return lengths + PROMPT
        case "n_response_tokens":
            return lengths
        case "head_norm":
            return np.full(len(lengths), 100.0)
        case "vocabulary":
            return np.full(len(lengths), VOCABULARY)
        case "prompt":  # half of them have a second response
            return rng.integers(0, max(1, len(lengths) * 2 // 3), len(lengths))
    return _in_range(column, len(lengths), rng)


def _of_tokens(column: Column, lengths: Ints, offsets: Ints, rng: np.random.Generator) -> NDArray[Any]:
    if column.name == "is_end":
        is_end = np.zeros(offsets[-1], dtype=np.bool_)
        is_end[offsets[1:] - 1] = True
        return is_end
    if column.name == "position":
        position: NDArray[np.int32] = np.empty(offsets[-1], dtype=np.int32)
        for first in range(0, len(lengths), 10_000):  # in pieces: the temporaries must not set the peak
            last = min(first + 10_000, len(lengths))
            flat = np.arange(offsets[first], offsets[last])
            starts = np.repeat(offsets[first:last], lengths[first:last])
            position[offsets[first] : offsets[last]] = flat - starts + PROMPT
        return position
    if column.kind == "real" and column.at_most is None:
        return rng.standard_exponential(int(offsets[-1]), dtype=np.float32)
    return _in_range(column, int(offsets[-1]), rng)


def _in_range(column: Column, count: int, rng: np.random.Generator) -> NDArray[Any]:
    """Heavy-tailed where only the lower end is bounded, as losses and norms are."""
    if column.kind == "truth":
        return rng.integers(0, 2, count).astype(np.bool_)
    if column.at_most is not None:
        values = rng.uniform(column.at_least or 0, column.at_most, count)
    elif column.at_least is not None:
        values = column.at_least + rng.lognormal(0, 0.7, count)
    else:
        values = rng.normal(0, 1, count)
    if column.kind == "whole":
        return np.round(values).astype(np.int64)
    return values.astype(np.float32) if column.of == "token" else values


def vectors_of(rows: int, width: int, kind: str, seed: int) -> NDArray[np.float32]:
    """(rows, width): random directions, or clusters of falling variance off the origin, as hidden states."""
    rng = np.random.default_rng(seed)
    if kind == "random":
        return rng.standard_normal((rows, width), dtype=np.float32)
    spread = (np.arange(1, width + 1) ** -0.5).astype(np.float32)
    centres = rng.standard_normal((max(1, rows // 200), width), dtype=np.float32)
    found = centres[rng.integers(0, len(centres), rows)]
    for start in range(0, rows, 10_000):
        part = found[start : start + 10_000]
        part += rng.standard_normal(part.shape, dtype=np.float32)
        part *= spread
        part += np.float32(0.1)
    return found
