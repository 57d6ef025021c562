"""Conversations -> token ids, with position, turn and character span of every response token.

Notable choices:
- the whole text is tokenised once, as training does; a token belongs to a response when it shares a
  character with it, so one that straddles the border is trained on;
- offsets come from a copy of the tokenizer without post-processor, since one that trims offsets hides
  leading spaces;
- what cannot be rendered with certain spans comes back as a RenderError in the row's place;
- answers without their prompts are cut where the whole sample is, so that both are of the same text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from scorers.conversations.conversation import Conversation
from scorers.conversations.forms import RefusedError
from scorers.conversations.spans import ChatTemplate, Response
from scorers.models.sources import ModelSourceError

Int32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A rendered sample of L tokens, T of which are trained on.

    input_ids: (L,). position: (T,) where the response tokens stand, ascending and never 0. turn: (T,) index
    into the conversation's turns. char_start, char_end: (T,) the part of that turn's content that the token
    covers; template text before it is empty at 0, text after it (end of turn, tool calls) empty at its end.
    is_end: (T,) whether the token closes its turn. n_truncated: response tokens past max_length.
    n_tokens_full: L before truncation.
    """

    input_ids: Int32
    position: Int32
    turn: Int32
    char_start: Int32
    char_end: Int32
    is_end: NDArray[np.bool_]
    n_truncated: int
    n_tokens_full: int


@dataclass(frozen=True, slots=True)
class RenderError:
    """Why a conversation cannot be measured, and what to do about it."""

    reason: str


class ChatRenderer:
    """Renders conversations with a tokenizer's chat template, or with ours when it has none.

    `train_on` "all" trains on every assistant turn, "last" on the final one. Past `max_length` tokens a
    sample is cut, or with `overflow` "error" refused. `context` is what stands before the answers: "full"
    the conversation; "header" only what the template opens an answer with; "bare" nothing, so that the very
    first token is not predicted, and end-of-turn tokens are left out. Raises ModelSourceError for an
    unusable template.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        train_on: Literal["all", "last"] = "all",
        max_length: int | None = None,
        overflow: Literal["truncate", "error"] = "truncate",
        context: Literal["full", "header", "bare"] = "full",
    ) -> None:
        if not tokenizer.is_fast:
            raise ModelSourceError("the tokenizer has no fast form, so its tokens have no character offsets")
        self._template = ChatTemplate(tokenizer)
        self._last_only = train_on == "last"
        self._max_length = max_length
        self._overflow = overflow
        self._context = context
        self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.post_processor = None
        self._backend.no_truncation()
        self._backend.no_padding()
        special = [index for index, token in tokenizer.added_tokens_decoder.items() if token.special]
        special += [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        self._is_special = np.zeros(1 + max([len(tokenizer), *special]), dtype=np.bool_)
        self._is_special[special] = True

    def render(self, conversations: Sequence[Conversation]) -> list[Encoded | RenderError]:
        """One result for each conversation, in order."""
        results: list[Encoded | RenderError | None] = []
        rendered: list[tuple[int, str, list[Response]]] = []
        for row, conversation in enumerate(conversations):
            try:
                text, responses = self._template.responses(conversation, last_only=self._last_only)
                text.encode()  # half a surrogate pair would fail the whole batch below
            except RefusedError as refusal:
                results.append(RenderError(str(refusal)))
                continue
            except UnicodeEncodeError as error:
                results.append(RenderError(f"text is not valid Unicode: {error}; repair or drop the row"))
                continue
            rendered.append((row, text, responses))
            results.append(None)
        encodings = self._backend.encode_batch([text for _, text, _ in rendered], add_special_tokens=False)
        for (row, text, responses), encoding in zip(rendered, encodings, strict=True):
            whole = self._place(conversations[row], responses, encoding)
            if self._context != "full" and isinstance(whole, Encoded):
                whole = self._alone(conversations[row], text, responses, whole)
            results[row] = whole
        return [result for result in results if result is not None]

    def _alone(
        self, conversation: Conversation, text: str, responses: Sequence[Response], whole: Encoded
    ) -> Encoded | RenderError:
        """What `whole` has of the answers, without what they answer."""
        try:
            text, responses = self._template.alone(text, responses, bare=self._context == "bare")
        except RefusedError as refusal:
            return RenderError(str(refusal))
        found = self._place(conversation, responses, self._backend.encode(text, add_special_tokens=False))
        if isinstance(found, RenderError):
            return RenderError("a single token, which nothing stands before to predict it")
        if not whole.n_truncated:
            return found
        turn, end, is_end = whole.turn[-1], whole.char_end[-1], whole.is_end[-1]
        here = (found.char_end < end) | ((found.char_end == end) & (found.is_end <= is_end))
        seen = (found.turn < turn) | ((found.turn == turn) & here)
        kept = np.flatnonzero(seen)[: len(whole.position)]
        if not len(kept):
            return RenderError("no response token left where the whole sample is cut; raise max_length")
        return replace(
            found,
            input_ids=found.input_ids[: found.position[kept[-1]] + 1],
            position=found.position[kept],
            turn=found.turn[kept],
            char_start=found.char_start[kept],
            char_end=found.char_end[kept],
            is_end=found.is_end[kept],
            n_truncated=found.n_truncated + len(seen) - len(kept),
        )

    def _place(
        self, conversation: Conversation, responses: Sequence[Response], encoding: Any
    ) -> Encoded | RenderError:
        ids = np.array(encoding.ids, dtype=np.int32)
        places = np.fromiter(chain.from_iterable(encoding.offsets), np.int32, 2 * len(ids))
        starts, stops = places.reshape(-1, 2).T
        n_full, limit = len(ids), self._max_length if self._max_length is not None else len(ids)
        if n_full > limit and self._overflow == "error":
            return RenderError(
                f"{n_full} tokens, more than max_length {limit}; raise max_length or let it truncate"
            )
        special = self._is_special[ids]
        free = np.arange(n_full) > 0  # nothing predicts the first token; no token is trained on twice
        columns: list[tuple[Any, ...]] = []
        for response in responses:
            # Tokens of no width (an inserted space) count where they stand. A special token that begins
            # before the response is template text, even if it swallows whitespace behind it.
            inside = free & (starts < response.stop) & (np.maximum(stops, starts + 1) > response.start)
            position = np.flatnonzero(inside & ~(special & (starts < response.start)))
            free[position] = False
            size = len(conversation.turns[response.turn].content)
            first, last = _in_content(starts[position], stops[position], response, size)
            past_content = stops[position] > response.content_stop
            closing = np.flatnonzero(past_content & special[position])[-1:]
            is_end = np.zeros(len(position), dtype=np.bool_)
            is_end[closing] = True
            columns.append((position, np.full(len(position), response.turn), first, last, is_end))
        position, turn, first, last, is_end = (
            column[0] if len(column) == 1 else np.concatenate(column) for column in zip(*columns, strict=True)
        )
        kept = position < limit
        if not kept.any():
            where = f" after truncation to max_length {limit}" if len(position) else ""
            remedy = "; raise max_length" if len(position) else ""
            return RenderError(f"no response token left{where}{remedy}")
        return Encoded(
            input_ids=ids[:limit],
            position=position[kept].astype(np.int32),
            turn=turn[kept].astype(np.int32),
            char_start=first[kept].astype(np.int32),
            char_end=last[kept].astype(np.int32),
            is_end=is_end[kept],
            n_truncated=int((~kept).sum()),
            n_tokens_full=n_full,
        )


def _in_content(starts: Int32, stops: Int32, response: Response, size: int) -> tuple[Int32, Int32]:
    """Tokens of the rendered text as spans of the turn's content, which has `size` characters.

    Text between two stretches of the content is an empty span at the end of the first. What the template was
    given may be longer than the content (tool calls as text), or trimmed.
    """
    offsets = np.stack([starts, stops])
    found = np.zeros_like(offsets)
    for part in response.stretches:
        seen = (starts >= part.at) | (stops > part.at)
        inside = np.minimum(
            np.maximum(offsets - part.at, 0), part.length
        )  # np.clip takes three times as long
        found = np.where(seen, part.lead + inside, found)
    found[:, starts >= response.content_stop] = size
    first, last = np.minimum(found, size)
    return first, last
