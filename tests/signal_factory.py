"""Random signals that hang together as measured ones do, and plain sample columns for ranking tests."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scorers.methods.judge import Judge, JudgeOptions
from scorers.methods.reward import Reward, RewardOptions
from scorers.signals.columns import ALIGNED_VIEWS, Signals


def sample_ids(n: int, seed: int = 0) -> NDArray[np.str_]:
    """n distinct hashes, in no order."""
    digests = (hashlib.blake2b(f"{seed}/{i}".encode(), digest_size=16).hexdigest() for i in range(n))
    return np.array(list(digests), dtype=np.str_)


def make_signals(n: int, seed: int = 0, *, max_turns: int = 3, max_response: int = 12) -> Signals:
    """n multi-turn samples with prompt gaps between turns, most turns closed by an end token.

    Sample columns are the means of the token columns. Single-token responses, a first response token at
    position 1 and samples that end inside a turn all occur. All vectors and views are there; in the views a
    response is less likely, and the target set has seven samples of its own, of two tasks.
    """
    base = _plain_signals(n, seed, max_turns, max_response)
    rng = np.random.default_rng([seed, 1])
    others = {name: _less_likely(base, rng) for name in ("free", "bare", "reference")}
    target = _plain_signals(7, seed + 1_000_003, max_turns, max_response)
    target = replace(target, tasks=np.array([*"aabbbab"]), rows=np.arange(10, 17))
    return replace(base, others=others | {"target": target})


def _less_likely(signals: Signals, rng: np.random.Generator) -> Signals:
    """The same samples with larger losses."""
    tokens = dict(signals.tokens)
    tokens["nll"] = (tokens["nll"] * rng.uniform(1.2, 2.5, len(tokens["nll"]))).astype(np.float32)
    owner = np.repeat(np.arange(len(signals)), signals.lengths)
    mean = np.bincount(owner, weights=tokens["nll"], minlength=len(signals)) / np.maximum(signals.lengths, 1)
    # what is left out of a bare answer may have been its likeliest token
    return replace(signals, samples={**signals.samples, "nll": 20 * mean}, tokens=tokens)


def _plain_signals(n: int, seed: int, max_turns: int, max_response: int) -> Signals:
    rng = np.random.default_rng(seed)
    positions, ends, offsets, n_tokens = [], [], [0], []
    for _ in range(n):
        at = int(rng.integers(1, 6))
        here: list[int] = []
        turn_ends: list[bool] = []
        for _ in range(int(rng.integers(1, max_turns + 1))):
            length = int(rng.integers(1, max_response + 1))
            here.extend(range(at, at + length))
            turn_ends.extend([False] * (length - 1) + [bool(rng.random() < 0.9)])
            at += length + int(rng.integers(0, 5))
        positions.extend(here)
        ends.extend(turn_ends)
        offsets.append(offsets[-1] + len(here))
        n_tokens.append(at if rng.random() < 0.5 else here[-1] + 1)
    m, starts = offsets[-1], np.array(offsets)
    counts = np.diff(starts)
    tokens = {
        "position": np.array(positions, dtype=np.int32),
        "nll": rng.exponential(2.0, m).astype(np.float32),
        "entropy": rng.exponential(1.5, m).astype(np.float32),
        "el2n": rng.uniform(0, 2**0.5, m).astype(np.float32),
        "top1": rng.random(m) < 0.5,
        "is_end": np.array(ends, dtype=np.bool_),
    }
    rank = np.repeat(np.arange(n), counts)
    means = {
        name: np.bincount(rank, weights=tokens[name].astype(np.float64), minlength=n) / np.maximum(counts, 1)
        for name in ("nll", "entropy", "el2n")
    }
    grad_norm, head_norm = rng.lognormal(1.0, 1.0, n), 30.0
    samples = {
        "n_tokens": np.array(n_tokens, dtype=np.int64),
        "n_prompt_tokens": np.array(n_tokens, dtype=np.int64) - counts,
        "n_response_tokens": counts.astype(np.int64),
        **means,
        "head_grad_norm": grad_norm,
        "head_grad_dot": rng.uniform(-1, 1, n) * np.minimum(grad_norm * head_norm, 5.0),
        "head_norm": np.full(n, head_norm),
        "tied_grad_norm": grad_norm * rng.uniform(0.5, 2, n),
        "tied_grad_dot": rng.uniform(-1, 1, n),
    }
    also = np.random.default_rng([seed, 2])  # columns that came later leave the earlier ones as they were
    samples["lora_effort"] = also.lognormal(0.0, 1.0, n)
    samples["vocabulary"] = np.full(n, 400)
    samples["prompt"] = np.random.default_rng([seed, 3]).integers(0, max(1, n // 2), n)
    vectors = {
        "head_grad_projection": also.normal(size=(n, 12)).astype(np.float32),
        "mean_hidden": also.normal(size=(n, 9)).astype(np.float32),
        "weighted_hidden": also.normal(size=(n, 9)).astype(np.float32),
    }
    for rubric in ("alpagasus", "deita"):
        for need in sorted(Judge().needs(JudgeOptions(rubric=rubric))):
            samples[need] = also.integers(2, 11, n) / 2
    for need in Reward().needs(RewardOptions()):
        samples[need] = also.normal(size=n)
    return Signals(sample_ids(n, seed), samples, tokens, starts, vectors)


def sample_signals(ids: NDArray[np.str_] | None = None, **columns: ArrayLike) -> Signals:
    """Signals with the given sample columns and one response token for each sample."""
    samples = {name: np.asarray(column) for name, column in columns.items()}
    n = len(next(iter(samples.values())))
    tokens = {
        "position": np.ones(n, dtype=np.int32),
        "nll": np.zeros(n, dtype=np.float32),
        "is_end": np.zeros(n, dtype=np.bool_),
    }
    samples.setdefault("n_tokens", np.full(n, 2))
    return Signals(sample_ids(n) if ids is None else ids, samples, tokens, np.arange(n + 1))


def reorder(signals: Signals, order: NDArray[np.int64]) -> Signals:
    """The same samples in another order, tokens moved along."""
    starts, stops = signals.offsets[:-1][order], signals.offsets[1:][order]
    pick = np.concatenate([np.arange(a, b) for a, b in zip(starts, stops, strict=True)] or [np.arange(0)])
    return Signals(
        signals.ids[order],
        {name: column[order] for name, column in signals.samples.items()},
        {name: column[pick] for name, column in signals.tokens.items()},
        np.concatenate([[0], np.cumsum(stops - starts)]),
        {name: vectors[order] for name, vectors in signals.vectors.items()},
        {
            name: reorder(view, order) if name in ALIGNED_VIEWS else view
            for name, view in signals.others.items()
        },
    )
