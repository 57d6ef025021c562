"""Conversations from lists of messages, as they stand in most tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scorers.conversations.conversation import Conversation, Turn


def of_messages(messages: Sequence[Mapping[str, str]]) -> Conversation:
    """The turns of messages that have a role and a content."""
    return Conversation(tuple(Turn(**message) for message in messages))  # type: ignore[arg-type]
