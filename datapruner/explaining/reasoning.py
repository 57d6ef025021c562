"""What rewriting made of a row: its reasoning with what was cut, or in new words, and each step's fate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from datapruner.explaining.explanation import Piece, ShownStep, ShownTurn
from scorers.conversations.conversation import Conversation

_SHOWN = (
    "level",
    "budget",
    "tokens_before",
    "tokens_after",
    "dangling_references",
    "dangling_colons",
    "broken_blocks",
)


def about_reasoning(record: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a row's reasoning, as a line of the table `rewrites` has it."""
    return {name: record[name] for name in _SHOWN if record.get(name) is not None}


def with_rewriting(
    turns: Sequence[ShownTurn], conversation: Conversation, record: Mapping[str, Any]
) -> Iterator[ShownTurn]:
    """The turns with what was cut of the reasoning marked as pruned.

    A response in new words is shown as a turn of its own, below the one that it takes the place of.
    """
    changed = record["reasoning_turn"] if record["status"] == "rewritten" else None
    for at, turn in enumerate(turns):
        if at != changed:
            yield turn
            continue
        content = conversation.turns[at].content
        if record["removed"]:
            yield replace(turn, pieces=tuple(_cut_pieces(content, record)))
        else:
            yield replace(turn, pieces=(Piece(content, "pruned"),))
            yield ShownTurn(f"{turn.role}, rewritten", (Piece(record["text"], "kept"),))


def _cut_pieces(content: str, record: Mapping[str, Any]) -> Iterator[Piece]:
    at, shift = 0, record["reasoning_start"]
    for span in record["removed"]:
        start, end = span["start"] + shift, span["end"] + shift
        if at < start:
            yield Piece(content[at:start], "kept")
        yield Piece(content[start:end], "pruned")
        at = end
    if at < len(content):
        yield Piece(content[at:], "kept")


def shown_steps(conversation: Conversation, record: Mapping[str, Any]) -> Iterator[ShownStep]:
    """The steps of the reasoning."""
    if not record["steps"]:
        return
    content = conversation.turns[record["reasoning_turn"]].content[record["reasoning_start"] :]
    for step in record["steps"]:
        text = content[step["start"] : step["end"]]
        yield ShownStep(text, step["surprisal"], step["kept"], step["why"])
