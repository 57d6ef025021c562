"""Finding the chain of thought in a conversation: a `<think>` block, or what a pattern of the user's says.

A reasoning column needs nothing here: ingest folds it into the response as such a block
(`datapruner.input.shapes`), `thinking`, `reasoning_content` and the like by name, others by a mapping.

Notable choices:
- reasoning is looked for in the last assistant turn, which is the one that every setting trains on; blocks in
  earlier turns stay as they are (chat templates mostly strip them);
- a block without `<think>` begins with the response: reasoning models' templates open it for them;
- patterns are run by RE2, whose time is linear in the text whatever the pattern, so a hostile one cannot
  hang a run; what RE2 has no linear time for (look-around, back-references) it refuses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from datapruner.errors import UsageError
from scorers.conversations.conversation import Conversation, think_block

GROUP = "reasoning"
_WHOLE = "datapruner_match"
_MAX_PATTERN = 1000
_PATTERN_HELP = (
    f"write an RE2 pattern with a group named {GROUP}, such as (?s)Thought:(?P<{GROUP}>.*?)Answer:"
)


@dataclass(frozen=True, slots=True)
class ReasoningRow:
    """A row whose chain of thought was found.

    sample_id: the conversation's content hash. messages: the turns before the response, each {"role": ...,
    "content": ...}. reasoning: the chain of thought, verbatim. answer: what follows it, verbatim. opening,
    closing: the response's text before the reasoning, and between it and the answer: `opening + reasoning +
    closing + answer` is the response. reference: the known right answer, where the row has one.
    """

    sample_id: str
    messages: Sequence[Mapping[str, str]]
    opening: str
    reasoning: str
    closing: str
    answer: str
    reference: str | None

    def response(self, reasoning: str) -> str:
        """The response with this reasoning in place of its own."""
        return f"{self.opening}{reasoning}{self.closing}{self.answer}"

    def left(self, response: str) -> str:
        """The reasoning in a response that `response` made."""
        return response[len(self.opening) : len(response) - len(self.closing) - len(self.answer)]


@dataclass(frozen=True, slots=True)
class Parts:
    """A response cut in four: opening + reasoning + closing + answer is the response."""

    opening: str
    reasoning: str
    closing: str
    answer: str


class ReasoningFinder:
    """Finds the reasoning in responses: by `<think>` block, or by the group "reasoning" of `pattern`.

    With a pattern, the answer is what follows the whole match. Raises UsageError for one that is not valid.
    """

    def __init__(self, pattern: str | None = None) -> None:
        self.pattern = pattern
        if pattern is None:
            return
        if len(pattern) > _MAX_PATTERN:
            raise UsageError(
                f"the reasoning pattern has {len(pattern):,} characters, more than {_MAX_PATTERN:,}",
                remedy=_PATTERN_HELP,
                field="pattern",
            )
        self._program = f"(?P<{_WHOLE}>{pattern})"
        try:
            # As given first: a message about it must not speak of our group.
            pc.extract_regex_span(pa.array([""]), pattern=pattern)
            found = pc.extract_regex_span(pa.array([""]), pattern=self._program)
        except pa.ArrowException as error:
            raise UsageError(
                f"reasoning pattern {pattern!r}: {error}", remedy=_PATTERN_HELP, field="pattern"
            ) from error
        if GROUP not in found.type.names:
            raise UsageError(
                f"reasoning pattern {pattern!r} has no group named {GROUP}",
                remedy=_PATTERN_HELP,
                field="pattern",
            )

    def parts(self, response: str) -> Parts | None:
        """The parts of a response, None when it has no reasoning, or none but whitespace.

        Whitespace around the reasoning counts as opening and closing.
        """
        found = think_block(response) if self.pattern is None else self._matched(response)
        if found is None:
            return None
        start, end, answer = found
        reasoning = response[start:end]
        if not reasoning.strip():
            return None
        start += len(reasoning) - len(reasoning.lstrip())
        end -= len(reasoning) - len(reasoning.rstrip())
        return Parts(response[:start], response[start:end], response[end:answer], response[answer:])

    def find(
        self, sample_id: str, conversation: Conversation, reference: str | None = None
    ) -> ReasoningRow | None:
        """The reasoning of a conversation's last assistant turn, None when it has none."""
        at = last_assistant(conversation)
        parts = self.parts(conversation.turns[at].content)
        if parts is None:
            return None
        before = conversation.turns[:at]
        return ReasoningRow(
            sample_id=sample_id,
            messages=tuple({"role": turn.role, "content": turn.content} for turn in before),
            opening=parts.opening,
            reasoning=parts.reasoning,
            closing=parts.closing,
            answer=parts.answer,
            reference=reference,
        )

    def _matched(self, response: str) -> tuple[int, int, int] | None:
        """Characters: start and end of the reasoning, start of the answer."""
        [found] = pc.extract_regex_span(pa.array([response]), pattern=self._program).to_pylist()
        if found is None or found[GROUP] is None:
            return None
        raw = response.encode()
        (start, length), (begin, size) = found[GROUP], found[_WHOLE]
        edges = (start, start + length, begin + size)
        first, last, answer = (len(raw[:edge].decode()) for edge in edges)
        return first, last, answer


def last_assistant(conversation: Conversation) -> int:
    """Index of the last assistant turn, which every ingested conversation has."""
    return max(at for at, turn in enumerate(conversation.turns) if turn.role == "assistant")


def with_response(conversation: Conversation, text: str) -> Conversation:
    """The conversation with `text` as its last response."""
    turns, at = list(conversation.turns), last_assistant(conversation)
    turns[at] = replace(turns[at], content=text)
    return replace(conversation, turns=tuple(turns))
