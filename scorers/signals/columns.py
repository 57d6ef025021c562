"""What one forward pass leaves behind, as columns: the only input that methods read.

N samples, M response tokens in all. Token columns are flat, sample after sample, and `offsets` (N + 1)
says where each sample's tokens lie, as in Arrow lists.

Notable choices:
- scalars are float64, tokens float32: sums over a corpus stay exact, the cache stays small;
- a response token is described by where it stands in the sequence (`position`), not only by order,
  because Q-Tuning's neighbour term reads the sequence, gaps between turns included;
- what some methods compare with (the response without its prompt, another model, a target set) are further
  `Signals` of the same form, called views; a method asks for theirs as "view:name" or "view:token:name";
- what has to be fitted to the corpus as a whole cannot be cached sample by sample: a method asks for it by
  `corpus_need`, with its settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SIGNAL_VERSION = 1
"""Raised whenever a signal's value would change; part of the cache key."""

SAMPLE_SIGNALS: Mapping[str, str] = {
    "n_tokens": "tokens of the rendered sample, after truncation",
    "n_prompt_tokens": "tokens that are not trained on (system, user, tool, template glue)",
    "n_response_tokens": "trained tokens |T|: assistant turns, end-of-turn tokens included",
    "nll": "mean over T of -ln p(y_t), nats",
    "entropy": "mean over T of the entropy of p_t over the full vocabulary, nats",
    "el2n": "mean over T of ||p_t - onehot(y_t)||_2",
    "head_grad_norm": "||G||_F, G the gradient of the mean response nll by the output head",
    "head_grad_dot": "<W, G>_F",
    "head_norm": "||W||_F of the proxy's output head (the same for every sample)",
    "tied_grad_norm": "||G||_F when the head is tied to the input embedding (needs a backward pass)",
    "tied_grad_dot": "<W, G>_F when the head is tied to the input embedding",
    "lora_effort": "gradient norm of the last v_proj.lora_B, for a fresh LoRA (needs a backward pass)",
}
TOKEN_SIGNALS: Mapping[str, str] = {
    "position": "0-based position of the token in the rendered sequence",
    "nll": "-ln p(y_t), nats",
    "entropy": "entropy of p_t, nats",
    "el2n": "||p_t - onehot(y_t)||_2",
    "top1": "whether y_t was the most likely token",
    "is_end": "whether the token closes an assistant turn (end-of-turn or end-of-text)",
}
SENTENCE_EMBEDDING = "sentence_embedding"
VECTOR_SIGNALS: Mapping[str, str] = {
    "head_grad_projection": "two-sided random projection of G, float32 (k1 * k2)",
    SENTENCE_EMBEDDING: "unit vector of a sentence-embedding model, float32 (its own width)",
    "mean_hidden": "mean over T of the final hidden state that predicts the token, float32 (D)",
}
CORPUS_SIGNALS: Mapping[str, str] = {
    "lissa_influence": "influence of removing the sample, by LiSSA on one layer (many passes, see `lissa`)",
}
"""Sample signals that depend on which other samples there are, and on settings: see `corpus_need`."""

VIEWS: Mapping[str, str] = {
    "free": "the same samples without their prompts: the template's opening of an answer, then the answer",
    "bare": "the text of the same samples' answers alone, without prompt or template",
    "reference": "the same samples, measured by the reference model",
    "target": "the samples of the target set, measured like the corpus",
}
ALIGNED_VIEWS = frozenset({"free", "bare", "reference"})
"""Views that have the samples of the corpus, in the same order; the others have samples of their own."""


def needs_by_view(needs: Iterable[str]) -> dict[str, frozenset[str]]:
    """What is needed of each view, by its plain name; "" is the corpus itself and always there.

    `{"nll", "free:token:nll"}` is `{"": {"nll"}, "free": {"token:nll"}}`.
    """
    found: dict[str, set[str]] = {"": set()}
    for need in needs:
        view, _, name = need.partition(":")
        if view in VIEWS:
            found.setdefault(view, set()).add(name)
        else:
            found[""].add(need)
    return {view: frozenset(names) for view, names in found.items()}


def corpus_need(name: str, **settings: str | float) -> str:
    """How a method asks for a corpus signal; also the name of its column: `lissa_influence?steps=5000`."""
    return f"{name}?{urlencode(settings)}"


def corpus_settings(need: str) -> tuple[str, dict[str, str]] | None:
    """(name, settings) of what `corpus_need` made; None for every other need."""
    name, mark, settings = need.partition("?")
    return (name, dict(parse_qsl(settings, keep_blank_values=True))) if mark else None


@dataclass(frozen=True, slots=True)
class Signals:
    """Columns of N measured samples, in input order.

    ids: (N,) content hashes, unique. samples: name -> (N,). tokens: name -> (M,). offsets: (N + 1,).
    vectors: name -> (N, k), present only when a method asked for them. others: name of a view (`VIEWS`) ->
    its signals, likewise; those of `ALIGNED_VIEWS` are of the same N samples.
    """

    ids: NDArray[np.str_]
    samples: Mapping[str, NDArray[np.generic]]
    tokens: Mapping[str, NDArray[np.generic]]
    offsets: Ints
    vectors: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    others: Mapping[str, Signals] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, m = len(self.ids), int(self.offsets[-1])
        assert self.offsets.shape == (n + 1,), f"offsets {self.offsets.shape} for {n} samples"
        for name, column in self.samples.items():
            assert column.shape == (n,), f"sample signal {name} has shape {column.shape}, not ({n},)"
        for name, column in self.tokens.items():
            assert column.shape == (m,), f"token signal {name} has shape {column.shape}, not ({m},)"
        for name in ALIGNED_VIEWS & set(self.others):
            assert np.array_equal(self.others[name].ids, self.ids), f"view {name} is of other samples"

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Ints:
        """Response tokens of each sample, (N,)."""
        return np.diff(self.offsets)
