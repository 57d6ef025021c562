"""Conversations from lists of messages, as they stand in most tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datapruner.input.shapes.parser import Sample
from scorers.conversations.conversation import TURN_FIELDS, Conversation, Turn


def of_messages(messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """The turns of messages that have the fields of a turn, whatever else they have."""
    return Conversation(
        tuple(Turn(**{name: each[name] for name in TURN_FIELDS if name in each}) for each in messages)
    )


def of_sample(sample: Sample) -> Conversation:
    """The conversation that a row was read as."""
    return Conversation(tuple(Turn(*turn) for turn in sample.turns), sample.tools)
