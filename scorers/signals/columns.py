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
  `corpus_need`, with its settings; so it does for what others than the proxy model say of samples;
- vectors are most of what is measured, gigabytes for a million samples: they stay on disk, and a method takes
  as many at a time as it works on;
- token columns and ids of a large corpus are arrays on disk (`np.memmap`). A method that reads them in
  `blocks` has in memory what it works on; one that takes a column as a whole works, too, with as much memory.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import parse_qsl, urlencode

import numpy as np
from numpy.typing import NDArray

from scorers.column import Column, by_name

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Vectors(Protocol):
    """Vectors of N samples, (N, k) float32, taken by number: `vectors[rows]` is a copy, (len(rows), k).

    Arrays are of this form; so is what stands on disk, which is read fastest in the order of the sample ids.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, k)."""
        ...

    def __getitem__(self, rows: Ints, /) -> NDArray[np.float32]: ...


_BLOCK = 1 << 14  # samples whose tokens are worked on at once

SIGNAL_VERSION = 3
"""Raised whenever a signal's value would change; part of the cache key."""

SAMPLE_SIGNALS: Mapping[str, Column] = by_name(
    Column(
        "n_tokens", "tokens of the rendered sample, after truncation", kind="whole", unit="tokens", at_least=0
    ),
    Column(
        "n_prompt_tokens",
        "tokens not trained on: system, user, tool, template glue",
        kind="whole",
        unit="tokens",
        at_least=0,
    ),
    Column(
        "n_response_tokens",
        "tokens trained on (T), before pruning and rewriting: assistant turns, end-of-turn tokens included",
        kind="whole",
        unit="tokens",
        at_least=0,
    ),
    Column("nll", "mean over the response tokens of -ln p(y_t)", unit="nats", at_least=0),
    Column(
        "entropy",
        "mean entropy of the predicted distributions over the full vocabulary",
        unit="nats",
        at_least=0,
    ),
    Column(
        "el2n",
        "mean distance of the predicted distribution from the token, ||p_t - onehot(y_t)||_2",
        at_least=0,
        at_most=2**0.5,
    ),
    Column(
        "head_grad_norm", "||G||_F, G the gradient of the mean response nll by the output head", at_least=0
    ),
    Column("head_grad_dot", "<W, G>_F, W the proxy's output head"),
    Column("head_norm", "||W||_F of the proxy's output head, the same for every sample", at_least=0),
    Column(
        "tied_grad_norm",
        "||G||_F with the gradient that arrives through the tied input embedding (needs a backward pass)",
        at_least=0,
    ),
    Column("tied_grad_dot", "<W, G>_F with the gradient that arrives through the tied input embedding"),
    Column(
        "lora_effort",
        "gradient norm of the last v_proj.lora_B, for a fresh LoRA (needs a backward pass)",
        at_least=0,
    ),
)
TOKEN_SIGNALS: Mapping[str, Column] = by_name(
    Column("position", "index of the token in input_ids", of="token", kind="whole"),
    Column("nll", "-ln p(y_t) under the proxy model", of="token", unit="nats", at_least=0),
    Column("entropy", "entropy of the predicted distribution p_t", of="token", unit="nats", at_least=0),
    Column(
        "el2n",
        "distance of the predicted distribution from the token, ||p_t - onehot(y_t)||_2",
        of="token",
        at_least=0,
        at_most=2**0.5,
    ),
    Column("top1", "whether y_t was the most likely token", of="token", kind="truth"),
    Column(
        "is_end",
        "whether the token closes an assistant turn (end-of-turn or end-of-text)",
        of="token",
        kind="truth",
    ),
)
DERIVED_SIGNALS: Mapping[str, Column] = by_name(
    Column(
        "vocabulary",
        "tokens that the proxy chooses from, the same for every sample",
        kind="whole",
        unit="tokens",
        at_least=1,
    ),
    Column(
        "prompt",
        "hash of what the model sees before and between the responses: of samples with one prompt, the same",
        kind="whole",
    ),
)
"""What methods may ask for of a sample as well, though it is no number to rank by."""
SENTENCE_EMBEDDING = "sentence_embedding"
WEIGHTED_HIDDEN = "weighted_hidden"
VECTOR_SIGNALS: Mapping[str, Column] = by_name(
    Column("head_grad_projection", "two-sided random projection of G, float32 (k1 * k2)", kind="vector"),
    Column(
        SENTENCE_EMBEDDING,
        "unit vector of a sentence-embedding model, float32 (its own width)",
        kind="vector",
        at_least=-1,
        at_most=1,
    ),
    Column(
        "mean_hidden",
        "mean over the response tokens of the final hidden state that predicts each, float32 (D)",
        kind="vector",
    ),
    Column(
        WEIGHTED_HIDDEN,
        "mean over all L positions of the final hidden state, position i with weight i / (1 + ... + L), "
        "float32 (D)",
        kind="vector",
    ),
)
TEXT_SIGNALS = frozenset(
    {"n_tokens", "n_prompt_tokens", "n_response_tokens", "token:position", "token:is_end", SENTENCE_EMBEDDING}
)
"""What is known of a sample, as methods ask for it, without the proxy model: from its tokens and its text."""
RATING = "teacher_rating"
"""The corpus signal of what a teacher rates a sample; its settings are `rubric`, `score` and `max_tokens`."""
REWARD = "reward"
"""The corpus signal of what a reward model gives a sample; its setting is `label`."""
_OF_OTHERS = frozenset({RATING, REWARD})
"""Corpus signals that something else than the proxy model gives."""
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


def reads_proxy(need: str) -> bool:
    """Whether a signal, as methods ask for it, takes more of the proxy model than its tokens."""
    named = corpus_settings(need)
    return need not in TEXT_SIGNALS and (named is None or named[0] not in _OF_OTHERS)


@dataclass(frozen=True, slots=True)
class Signals:
    """Columns of N measured samples, in input order.

    ids: (N,) content hashes, unique. samples: name -> (N,). tokens: name -> (M,). offsets: (N + 1,).
    vectors: name -> (N, k), rows of which are taken by their numbers. others: name of a view (`VIEWS`) ->
    its signals, likewise; those of `ALIGNED_VIEWS` are of the same N samples.
    tasks, rows: of a target set, (N,), the task that each sample stands for and its row in the set that it is
    of; None where all are of one task, or their rows are not known.
    """

    ids: NDArray[np.str_]
    samples: Mapping[str, NDArray[np.generic]]
    tokens: Mapping[str, NDArray[np.generic]]
    offsets: Ints
    vectors: Mapping[str, Vectors] = field(default_factory=dict)
    others: Mapping[str, Signals] = field(default_factory=dict)
    tasks: NDArray[np.str_] | None = None
    rows: Ints | None = None

    def __post_init__(self) -> None:
        n, m = len(self.ids), int(self.offsets[-1])
        assert self.offsets.shape == (n + 1,), f"offsets {self.offsets.shape} for {n} samples"
        for name, column in self.samples.items():
            assert column.shape == (n,), f"sample signal {name} has shape {column.shape}, not ({n},)"
        for name, column in self.tokens.items():
            assert column.shape == (m,), f"token signal {name} has shape {column.shape}, not ({m},)"
        for name, vectors in self.vectors.items():
            assert vectors.shape[:1] == (n,), f"vector signal {name} has shape {vectors.shape}, not ({n}, k)"
        for name in ALIGNED_VIEWS & set(self.others):
            ids = self.others[name].ids
            assert ids is self.ids or np.array_equal(ids, self.ids), f"view {name} is of other samples"

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Ints:
        """Response tokens of each sample, (N,)."""
        return np.diff(self.offsets)

    def part(self, samples: slice) -> Signals:
        """Samples that follow each other, with their tokens and those of aligned views, without vectors."""
        first, last = int(self.offsets[samples.start]), int(self.offsets[samples.stop])
        return Signals(
            self.ids[samples],
            {name: column[samples] for name, column in self.samples.items()},
            {name: column[first:last] for name, column in self.tokens.items()},
            self.offsets[samples.start : samples.stop + 1] - first,
            others={name: each.part(samples) for name, each in self.others.items() if name in ALIGNED_VIEWS},
        )

    def lengths_in(self, samples: slice) -> Ints:
        """Those of some samples that follow each other, without a look at all."""
        return np.diff(self.offsets[samples.start : samples.stop + 1])

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """All samples, some thousand at a time, and their tokens; before the next ones, what was read is
        `let_go`."""
        for start in range(0, len(self), _BLOCK):
            stop = min(start + _BLOCK, len(self))
            yield slice(start, stop), slice(int(self.offsets[start]), int(self.offsets[stop]))
            self.let_go()

    def let_go(self) -> None:
        """Give back the memory of what was read of columns on disk, those of views among them."""
        for column in (self.ids, *self.tokens.values()):
            let_go(column)
        for view in self.others.values():
            view.let_go()

    def counted(self, tokens: Bools) -> Ints:
        """How many of each sample's tokens are marked in (M,): (N,)."""
        count = np.zeros(len(self), dtype=np.int64)
        some = np.flatnonzero(self.lengths)  # a sum over none would be the next sample's first
        for part in np.split(some, range(_BLOCK, len(some), _BLOCK)):
            if len(part):
                first, last = int(self.offsets[part[0]]), int(self.offsets[part[-1] + 1])
                begins = self.offsets[part] - first
                count[part] = np.add.reduceat(tokens[first:last], begins, dtype=np.int64)
        return count


def let_go(column: NDArray[np.generic]) -> None:
    """Give back the memory of an array on disk, or a part of one: it is read again from its file."""
    held: object = column
    while isinstance(held, np.ndarray):
        held = held.base
    if isinstance(held, mmap.mmap) and sys.platform != "win32":
        held.madvise(mmap.MADV_DONTNEED)
