"""The coarse stage of ASAP: a teacher leaves out what the way to the answer does not need (arXiv 2508.05988).

(a) From problem and answer alone the teacher writes the direct thought; (b) with that as its guide it
shortens the trace by leaving out; (c) what it returns must be steps of the trace, in their order. Where
that fails in every try, the trace stays as it was, and the reason is given. The fine stage, `asap`, goes on
from there: run it on the outcome.

Notable choices:
- similarity is computed with `autojunk` off. The published code has difflib's default, which takes common
  characters of long steps for junk and rejects every sixth step of 250 characters or more that lost one
  sentence at its start or in its middle; the option brings it back;
- the published code goes on with the teacher's words, up to 40 % of which may be its own. `verbatim` goes
  on with the original steps that they were matched with;
- a trace that the teacher made longer, or put marks of reasoning into, fails like one that does not match.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from anyio.to_thread import run_sync
from pydantic import BaseModel, Field

from datapruner.rewriting.acceptance import Rejection, holds_marks
from datapruner.rewriting.matching import UnmatchedError, match_steps
from datapruner.rewriting.outcomes import Rewritten, Step
from datapruner.rewriting.prompts import problem, prompt
from datapruner.rewriting.reasoning import ReasoningRow
from datapruner.rewriting.rewriters import Settings
from datapruner.teacher import Question, UnreadableAnswerError, parse_structured
from datapruner.teacher.prompts import fenced
from scorers.reasoning.steps import Span, removed_spans, split_steps, without

if TYPE_CHECKING:
    from datapruner.teacher.client import Teacher

SHORTENED = "steps that the answer does not need removed by the teacher"
ALL_NEEDED = "the teacher left nothing out"
LONGER = "the teacher made the trace longer"

Fields = TypeVar("Fields", bound=BaseModel)


class AnchorOptions(Settings):
    """The published settings: 5 tries, similarity 0.6, temperature 1."""

    tries: int = Field(5, ge=1, le=20, description="times that the teacher is asked to shorten a trace")
    similarity: float = Field(
        0.6, gt=0, le=1, description="least Gestalt similarity of a shortened step and its original"
    )
    autojunk: bool = Field(False, description="compare as the published code does, which rejects more")
    verbatim: bool = Field(False, description="emit the matched original steps, not the teacher's words")
    temperature: float = Field(1.0, ge=0, le=2, description="sampling temperature of the shortening")
    max_tokens: int = Field(
        16384, ge=1, description="most tokens of one answer of the teacher, its own thinking included"
    )

    def rewriter(self) -> AnchorRewriter:
        return AnchorRewriter(self)


class _Direct(BaseModel):
    thought: str


class _Shortened(BaseModel):
    compressed: str


class _FailedTryError(Exception):
    """A try came to nothing; the message says why."""


class AnchorRewriter:
    """The coarse stage alone as a rewriter. Stateless: any number of rows at once."""

    def __init__(self, options: AnchorOptions) -> None:
        self._options = options

    async def rewrite(self, row: ReasoningRow, teacher: Teacher) -> Rewritten:
        """The trace without what its answer does not need, or as it was, with the reason.

        Raises TeacherError when the teacher does not answer, LimitReachedError and TeacherUnavailableError as
        the teacher does.
        """
        options = self._options
        spans = split_steps(row.reasoning)
        why = ""
        thought: str | None = None
        for attempt in range(options.tries):
            try:
                if thought is None:
                    thought = await _direct_thought(row, teacher, options, attempt)
                shortened = await _shorten(row, thought, teacher, options, attempt)
                return await run_sync(_validated, row, spans, shortened, options)
            except UnreadableAnswerError:
                why = Rejection.UNREADABLE.value
            except (_FailedTryError, UnmatchedError) as error:
                why = str(error)
        reason = f"not shortened: {why}"
        steps = tuple(Step(start, end, None, True, reason) for start, end in spans)
        return Rewritten("original", row.response(row.reasoning), reason, steps=steps)


async def _direct_thought(row: ReasoningRow, teacher: Teacher, options: AnchorOptions, attempt: int) -> str:
    messages = prompt("asap-direct@1").messages(
        problem=problem(row.messages), answer=fenced("answer", row.answer)
    )
    question = Question("asap-direct@1", row.sample_id, messages, 0.0, options.max_tokens, attempt)
    return (await _ask(teacher, question, _Direct)).thought


async def _shorten(
    row: ReasoningRow, thought: str, teacher: Teacher, options: AnchorOptions, attempt: int
) -> str:
    messages = prompt("asap-compress@1").messages(
        problem=problem(row.messages),
        trace=fenced("trace", row.reasoning),
        thought=fenced("thought", thought),
    )
    question = Question(
        "asap-compress@1", row.sample_id, messages, options.temperature, options.max_tokens, attempt
    )
    return (await _ask(teacher, question, _Shortened)).compressed


async def _ask(teacher: Teacher, question: Question, fields: type[Fields]) -> Fields:
    answer = await teacher.ask(question)
    if answer.finish == "length":
        raise _FailedTryError(Rejection.CUT.value)
    return parse_structured(answer.text, fields)


def _validated(row: ReasoningRow, spans: Sequence[Span], shortened: str, options: AnchorOptions) -> Rewritten:
    """The outcome of a shortened trace that stands every check. Raises UnmatchedError and _FailedTryError."""
    pieces = [shortened[start:end] for start, end in split_steps(shortened)]
    originals = [row.reasoning[start:end] for start, end in spans]
    matches = match_steps(pieces, originals, options.similarity, autojunk=options.autojunk)
    similarity = dict(matches)
    kept = [index in similarity for index in range(len(spans))]
    if options.verbatim or all(value == 1.0 for value in similarity.values()):
        removed = tuple(removed_spans(spans, kept))
        text = without(row.reasoning, removed)
    else:
        removed, text = (), "\n\n".join(pieces)
        if holds_marks(text, row):
            raise _FailedTryError(Rejection.MARKUP.value)
        if len(text) > len(row.reasoning):
            raise _FailedTryError(LONGER)
    steps = tuple(
        Step(start, end, None, stays, _why(similarity.get(index), options))
        for index, ((start, end), stays) in enumerate(zip(spans, kept, strict=True))
    )
    if text == row.reasoning:
        return Rewritten("original", row.response(text), ALL_NEEDED, removed=removed, steps=steps)
    return Rewritten("rewritten", row.response(text), SHORTENED, removed=removed, steps=steps)


def _why(similarity: float | None, options: AnchorOptions) -> str:
    if similarity is None:
        return "left out by the teacher"
    if similarity == 1.0:
        return "kept by the teacher"
    words = "whole, though the teacher shortened it" if options.verbatim else "in the teacher's words"
    return f"kept {words} (similarity {similarity:.2f})"
