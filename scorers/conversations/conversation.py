"""The one shape every training row is turned into before it is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

Role = Literal["system", "user", "assistant", "tool"]

_OPEN, _CLOSE = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. Character spans of response tokens index into `content`.

    `tool_calls` holds the calls of an assistant turn as JSON text: a list of `{"id": ..., "name": ...,
    "arguments": ...}`, the id only where the row has one, the arguments as the row has them, an object or its
    text. None when there are none. `null` says that the row's content was null, not "". `tool_call_id` and
    `name` say which call a tool turn answers. `untrained` is why an assistant turn is not to be trained on
    (`weight 0`), in the row's own terms; None where it is.
    """

    role: Role
    content: str
    tool_calls: str | None = None
    tool_call_id: str | None = None
    name: str | None = None
    untrained: str | None = None
    null: bool = False


TURN_FIELDS = tuple(item.name for item in fields(Turn))


@dataclass(frozen=True, slots=True)
class Conversation:
    """A sample: its turns in order, and the tool schemas it may call (JSON text of a list)."""

    turns: Sequence[Turn]
    tools: str | None = None


class ThinkBlock(NamedTuple):
    """Where reasoning stands in a content, in characters.

    content[start:stop] is the reasoning, whitespace around it included; content[answer:] what follows the
    block and the whitespace behind it.
    """

    start: int
    stop: int
    answer: int


def think_block(content: str) -> ThinkBlock | None:
    """The first `<think>` block of a content; one that is never opened begins with the content.

    (The templates of reasoning models may open it for them.)
    """
    if _CLOSE not in content:
        return None
    opened = content.find(_OPEN)
    start = 0 if opened < 0 else opened + len(_OPEN)
    stop = content.find(_CLOSE, start)
    if stop < 0:
        return None
    after = stop + len(_CLOSE)
    return ThinkBlock(start, stop, after + len(content[after:]) - len(content[after:].lstrip()))


def reasoning_of(content: str) -> str | None:
    """The reasoning that a content begins with, None where there is none but whitespace."""
    block = think_block(content)
    if block is None or content[: block.start].strip() not in ("", "<think>"):
        return None
    return content[block.start : block.stop].strip() or None


def answer_of(content: str) -> str:
    """What follows the reasoning that a content begins with; all of it without any."""
    block = think_block(content) if reasoning_of(content) is not None else None
    return content if block is None else content[block.answer :]
