"""What rewriting made of a row: its reasoning with what was cut, or in new words, and each step's fate.

Notable choice: a response in new words is compared with the original word by word, by difflib; past
`_MOST_WORDS` all of one is removed and all of the other added, as its time grows with their product.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Any

from datapruner.explaining.explanation import Change, Piece, ShownStep, ShownTurn
from scorers.conversations.conversation import Conversation

_MOST_WORDS = 10_000
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


def changes(conversation: Conversation, record: Mapping[str, Any]) -> Iterator[Change]:
    """The response before and after, in one: "same" and "removed" are the original, "same" and "added" the
    new one. None of a row that was not rewritten."""
    if record["status"] != "rewritten":
        return
    original, new = conversation.turns[record["reasoning_turn"]].content, record["text"]
    cut = [(piece.text, piece.state == "pruned") for piece in _cut_pieces(original, record)]
    if "".join(text for text, is_gone in cut if not is_gone) == new:
        yield from (Change(text, "removed" if is_gone else "same") for text, is_gone in cut)
    else:
        yield from _compared(original, new)


def _compared(original: str, new: str) -> Iterator[Change]:
    before, after = (re.findall(r"\S+\s*|\s+", text) for text in (original, new))
    if len(before) + len(after) > _MOST_WORDS:
        yield from (Change(original, "removed"), Change(new, "added"))
        return
    for what, a, b, c, d in SequenceMatcher(None, before, after).get_opcodes():
        if what == "equal":
            yield Change("".join(before[a:b]), "same")
            continue
        if a < b:
            yield Change("".join(before[a:b]), "removed")
        if c < d:
            yield Change("".join(after[c:d]), "added")


def shown_steps(conversation: Conversation, record: Mapping[str, Any]) -> Iterator[ShownStep]:
    """The steps of the reasoning."""
    if not record["steps"]:
        return
    content = conversation.turns[record["reasoning_turn"]].content[record["reasoning_start"] :]
    for step in record["steps"]:
        text = content[step["start"] : step["end"]]
        yield ShownStep(text, step["surprisal"], step["kept"], step["why"])
