"""What is known of one sample, and what the ways to find it out share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import polars as pl

from datapruner.corpora.corpus import Corpus
from datapruner.errors import NotFoundError, UsageError
from scorers.conversations.conversation import Conversation

State = Literal["kept", "pruned", "scored", "untrained"]
_STATES: tuple[State, ...] = get_args(State)
Column = Literal["row", "sample_id"]
Span = tuple[int, int, bool, State]
"""Characters of a turn, whether they stand for its end, and what became of them."""

_LONGEST_ROW = 18  # digits: what a 64-bit number holds


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text whose tokens fared alike; empty for an end-of-turn token, which has no text.

    "scored" are the response tokens of a run that selected nothing.
    """

    text: str
    state: State


@dataclass(frozen=True, slots=True)
class ShownTurn:
    """One turn cut into pieces. `role` is null for a whole text decoded from token ids.

    `untrained` is why an assistant turn is not trained on, as the row says it; null where it does not.
    """

    role: str | None
    pieces: tuple[Piece, ...]
    tool_calls: str | None = None
    untrained: str | None = None


@dataclass(frozen=True, slots=True)
class ShownToken:
    """One response token: characters `start` to `end` of its turn's content, which are `text`.

    `text` is empty for template text. `nll`, `entropy` and `el2n` are null in a run for which no model read
    the samples, `el2n` also where its signals are not at hand; `keep` in one that selected nothing, and where
    the text was rewritten. `weight` is the factor of its loss, 0 where it is not trained on; null in a run
    that weights no tokens.
    """

    position: int
    turn: int
    start: int
    end: int
    text: str
    nll: float | None
    entropy: float | None
    el2n: float | None
    is_end: bool
    keep: bool | None
    weight: float | None


@dataclass(frozen=True, slots=True)
class ShownStep:
    """One step of the reasoning of a rewritten row. `surprisal` is its score, in nats."""

    text: str
    surprisal: float | None
    kept: bool
    why: str


@dataclass(frozen=True, slots=True)
class Change:
    """A stretch of a response that was rewritten: in the original and in the new text, or in one of them."""

    text: str
    kind: Literal["same", "removed", "added"]


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A row that repeats the explained one, or that it repeats, almost: at this Jaccard similarity."""

    row: int
    jaccard: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `explain` found. `notes` say what could not be shown, and why.

    `prompt` is all that the model reads before the first response token, with what the chat template
    adds: a system prompt of its own, the list of tools. `steps` are there for rows whose reasoning was cut.
    `changes` are the original and the new response of a row that was rewritten, in one. `copies` are the
    other rows with the same conversation, `near` those that the run found to be near duplicates: the row that
    this one was dropped for, or the rows that were dropped for this one.
    `ranks` are those of the numeric scores among the `ranked` samples that were measured: 1 is the
    highest value, and equal ones share a rank.
    """

    run: str
    row: int
    sample_id: str | None
    status: str
    reason: str | None
    quadrant: str | None
    scores: dict[str, Any]
    thresholds: dict[str, float]
    turns: tuple[ShownTurn, ...] = ()
    tokens: tuple[ShownToken, ...] = ()
    copies: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    source: dict[str, Any] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    ranked: int = 0
    steps: tuple[ShownStep, ...] = ()
    prompt: str | None = None
    changes: tuple[Change, ...] = ()
    near: tuple[NearDuplicate, ...] = ()

    def hardest(self, count: int) -> list[ShownToken]:
        """The response tokens that the proxy model expected least, the worst first; none if it read none."""
        read = [(-token.nll, token.position, token) for token in self.tokens if token.nll is not None]
        return [token for _, _, token in sorted(read, key=lambda each: each[:2])[:count]]


def find(
    sample: str, records: Callable[[Column, Any], list[dict[str, Any]]], place: str
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The record that `sample` names, and the rows of its exact copies. Raises UsageError.

    `records` gives the records of a row, or of the sample ids that start with a text, in row order; `place`
    is what they are looked for in.
    """
    kind, _, row = sample.partition(":")
    if kind == "row":
        if not row.isdecimal() or len(row) > _LONGEST_ROW:
            raise UsageError(f"{sample!r} is not a row", remedy="write row:12 for the 13th row of the input")
        found = records("row", int(row))
        if not found:
            raise NotFoundError(
                f"there is no row {int(row)} in {place}", remedy="rows count from 0, over the whole input"
            )
        sample_id = found[0]["sample_id"]
        alike = [] if sample_id is None else records("sample_id", sample_id)
        return found[0], tuple(each["row"] for each in alike if each["row"] != found[0]["row"])
    found = records("sample_id", sample) if sample else []
    ids = list(dict.fromkeys(record["sample_id"] for record in found))
    if len(ids) != 1:
        what = f"{len(ids)} samples have ids that start" if ids else "no sample has an id that starts"
        error = UsageError if ids else NotFoundError
        raise error(f"{what} with {sample!r} in {place}", remedy="give more of the id, or row:12")
    return found[0], tuple(record["row"] for record in found[1:])


def in_corpus(corpus: Corpus, scores: Mapping[str, Any]) -> tuple[Conversation | None, dict[str, Any]]:
    """The conversation; for a rejected row where it stood, and its beginning."""
    if scores["sample_id"] is not None:
        return corpus.conversation(scores["sample_id"]), {}
    rejected = corpus.rejects().filter(pl.col("row") == scores["row"]).to_dicts()[0]
    return None, {name: rejected[name] for name in ("source", "line", "field", "excerpt")}


def pieces_of(content: str, spans: Sequence[Span]) -> list[Piece]:
    """A turn's text by the fate of its characters. One that several tokens share is kept if any is."""
    fates = np.full(len(content), _STATES.index("untrained"), dtype=np.uint8)
    for start, end, _, state in sorted(spans, key=lambda span: span[3] == "kept"):
        fates[start:end] = _STATES.index(state)
    edges = [0, *(np.flatnonzero(np.diff(fates)) + 1).tolist(), len(content)]
    cut = [Piece(content[start:end], _STATES[fates[start]]) for start, end in pairwise(edges) if start < end]
    return cut + [Piece("", state) for _, _, is_end, state in spans if is_end]
