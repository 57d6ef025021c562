"""What a teacher is asked to rate a row, and the score that an answer gives.

Notable choices:
- one row a request, and the fences around its turns carry a digest of all that the request shows of it: no
  row can end its fence, or open another, and none sees another;
- the field of the score carries that code too, and has to be the whole answer: a row that is echoed in the
  answer cannot hold it, so that a score is never read out of the row's own text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from datapruner.judging.rubrics import Scale
from datapruner.teacher import Answer, Question, UnreadableAnswerError
from datapruner.teacher.prompts import code_of, fenced
from datapruner.teacher.structured import only_field
from scorers.conversations.conversation import Conversation, Turn

_NUMBER = re.compile(r"[0-9]{1,2}(?:\.[0-9]{1,4})?")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and the code of its fences."""

    question: Question
    code: str
    scale: Scale

    def score(self, answer: Answer) -> float:
        """What the answer says. Raises UnreadableAnswerError."""
        if answer.finish == "length":
            raise UnreadableAnswerError("it was cut off at max_tokens")
        found = only_field(answer.text, f"score-{self.code}")
        value = float(found) if _NUMBER.fullmatch(found) else -1.0
        if not self.scale.least <= value <= self.scale.most or (self.scale.whole and value % 1):
            kind = "a whole number" if self.scale.whole else "a number"
            raise UnreadableAnswerError(f"no score: {kind} from {self.scale.least:g} to {self.scale.most:g}")
        return value


def questions(sample_id: str, conversation: Conversation, scale: Scale, max_tokens: int) -> list[Asked]:
    """What is asked for one score of a row: none where the row has nothing that the score is of."""
    return [_asked(sample_id, turns, scale, max_tokens) for turns in _shown(conversation, scale)]


def _asked(sample_id: str, turns: Sequence[Turn], scale: Scale, max_tokens: int) -> Asked:
    contents = [_content(turn) for turn in turns]
    code = code_of(*contents)
    material = "\n\n".join(
        fenced(turn.role, content, code) for turn, content in zip(turns, contents, strict=True)
    )
    question = Question(
        prompt=scale.prompt,
        row=sample_id,
        messages=scale.text().messages(material=material, code=code),
        temperature=0.0,
        max_tokens=max_tokens,
    )
    return Asked(question, code, scale)


def _shown(conversation: Conversation, scale: Scale) -> Iterator[Sequence[Turn]]:
    """The turns that each question shows."""
    if scale.of == "conversation":
        yield conversation.turns
        return
    for asking, answering in _exchanges(conversation.turns):
        yield asking if scale.of == "instructions" else [*asking, *answering]


def _exchanges(turns: Sequence[Turn]) -> Iterator[tuple[list[Turn], list[Turn]]]:
    """What the user says, with what stands before it, and all that answers it: calls of tools and their
    results too. What nobody asked for is part of no exchange."""
    asking: list[Turn] = []
    answering: list[Turn] = []
    for turn in turns:
        if turn.role in ("system", "user"):
            if answering:
                yield asking, answering
                asking, answering = [], []
            asking.append(turn)
        elif any(each.role == "user" for each in asking):
            answering.append(turn)
    if answering:
        yield asking, answering


def _content(turn: Turn) -> str:
    return turn.content if turn.tool_calls is None else f"{turn.content}\n{turn.tool_calls}"
