"""DAP: a teacher rewrites each trace to the length that its difficulty calls for (arXiv 2505.19716).

The teacher sees the problem and the whole long trace, judges the problem easy, medium or hard, and rewrites
the trace by that level's layout, which ends with a Solution. What it writes is used only when it stands the
checks of `acceptance`; otherwise it is asked again, and at last the row stays as it was, or is dropped.

Notable choices:
- `single_call` judges and rewrites in one answer, as the paper does. `two_call` asks for the level alone
  first, which smaller teachers do better; a level once judged stays through the retries;
- a row that has no final answer to check against is not sent at all: nothing could be accepted;
- an attempt differs from the one before by chance alone. Telling the teacher what was wrong would tell it
  the right answer, and then the answer would check nothing;
- lengths are compared in the tokens of the counter that the caller gives; without one, in characters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from anyio.to_thread import run_sync
from pydantic import BaseModel, Field

from datapruner.rewriting.acceptance import (
    LEVELS,
    Level,
    RejectedRewriteError,
    Rejection,
    Trace,
    accept,
    parse_level,
)
from datapruner.rewriting.answers import AnswerCheck, final_answer
from datapruner.rewriting.math_judge import MathJudge
from datapruner.rewriting.outcomes import Rewritten
from datapruner.rewriting.prompts import problem, prompt, text
from datapruner.rewriting.reasoning import ReasoningRow
from datapruner.rewriting.rewriters import Settings
from datapruner.teacher import Question, UnreadableAnswerError, parse_structured
from datapruner.teacher.prompts import fenced

if TYPE_CHECKING:
    from datapruner.teacher.client import Teacher

UNCHECKABLE = "no final answer to check a rewrite against"
ACCEPTED = "the rewrite stood every check"

Counter = Callable[[str], int]
"""Tokens of a text."""


class DapOptions(Settings):
    """Of the paper's settings only the shape is known; temperature, limits and retries are ours."""

    mode: Literal["single_call", "two_call"] = Field(
        "single_call", description="judge and rewrite in one answer, as in the paper, or one after the other"
    )
    retries: int = Field(2, ge=0, le=20, description="further attempts after one that was not accepted")
    otherwise: Literal["keep_original", "drop"] = Field(
        "keep_original", description="what becomes of a row without an acceptable rewrite"
    )
    temperature: float = Field(0.6, ge=0, le=2, description="sampling temperature of the teacher")
    max_tokens: int = Field(
        8192, ge=1, description="most tokens of one answer of the teacher, its own thinking included"
    )

    def rewriter(self, count_tokens: Counter | None = None) -> DapRewriter:
        return DapRewriter(self, count_tokens)


class _Judged(BaseModel):
    difficulty: str


class _Rewrite(BaseModel):
    rewrite: str


class _JudgedRewrite(_Judged, _Rewrite):
    pass


@dataclass(slots=True)
class _Progress:
    """Of one row: the level as judged, and why the last attempt was not accepted."""

    level: Level | None = None
    rejection: Rejection = Rejection.UNREADABLE


class DapRewriter:
    """Rewrites row by row; many may be at work at the same time."""

    def __init__(self, options: DapOptions, count_tokens: Counter | None = None) -> None:
        self._options = options
        self._count = count_tokens
        self._judge = MathJudge()
        self._check = AnswerCheck(self._judge)

    def close(self) -> None:
        """End the process that compares answers."""
        self._judge.close()

    async def rewrite(self, row: ReasoningRow, teacher: Teacher) -> Rewritten:
        """What becomes of the row: "rewritten", or "original" or "dropped" by the setting.

        Raises TeacherError when the teacher does not answer, LimitReachedError and TeacherUnavailableError as
        the teacher does.
        """
        before = self._count(row.reasoning) if self._count else None
        reference = final_answer(row.answer if row.reference is None else row.reference)
        if reference is None:
            return self._unchanged(row, UNCHECKABLE, None, before)
        progress = _Progress()
        for attempt in range(1 + self._options.retries):
            try:
                trace = await self._attempt(row, reference, teacher, attempt, progress)
            except RejectedRewriteError as error:
                progress.rejection = error.rejection
            except UnreadableAnswerError:
                progress.rejection = Rejection.UNREADABLE
            else:
                return Rewritten(
                    "rewritten",
                    trace.response(row),
                    ACCEPTED,
                    level=progress.level,
                    tokens_before=before,
                    tokens_after=self._count(trace.reasoning) if self._count else None,
                )
        return self._unchanged(row, progress.rejection.value, progress.level, before)

    async def _attempt(
        self, row: ReasoningRow, reference: str, teacher: Teacher, attempt: int, progress: _Progress
    ) -> Trace:
        """An accepted rewrite. Raises RejectedRewriteError and UnreadableAnswerError."""
        texts = {"problem": problem(row.messages), "trace": fenced("trace", row.response(row.reasoning))}
        if self._options.mode == "single_call":
            texts["layouts"] = "\n\n".join(text(f"layout-{level}@1") for level in LEVELS)
            answer = await self._ask("dap-single@1", texts, row, teacher, attempt)
            both = parse_structured(answer, _JudgedRewrite)
            progress.level, rewrite = parse_level(both.difficulty), both.rewrite
        else:
            if progress.level is None:
                answer = await self._ask("dap-judge@1", texts, row, teacher, attempt)
                progress.level = parse_level(parse_structured(answer, _Judged).difficulty)
            texts |= {"level": progress.level, "layouts": text(f"layout-{progress.level}@1")}
            answer = await self._ask("dap-rewrite@1", texts, row, teacher, attempt)
            rewrite = parse_structured(answer, _Rewrite).rewrite
        length = self._count or len
        return await run_sync(accept, rewrite, progress.level, row, reference, length, self._check)

    async def _ask(
        self, name: str, texts: Mapping[str, str], row: ReasoningRow, teacher: Teacher, attempt: int
    ) -> str:
        question = Question(
            prompt=name,
            row=row.sample_id,
            messages=prompt(name).messages(**texts),
            temperature=self._options.temperature,
            max_tokens=self._options.max_tokens,
            attempt=attempt,
        )
        answer = await teacher.ask(question)
        if answer.finish == "length":
            raise RejectedRewriteError(Rejection.CUT)
        return answer.text

    def _unchanged(
        self, row: ReasoningRow, reason: str, level: Level | None, tokens: int | None
    ) -> Rewritten:
        if self._options.otherwise == "drop":
            return Rewritten("dropped", None, reason, level=level, tokens_before=tokens)
        return Rewritten(
            "original",
            row.response(row.reasoning),
            reason,
            level=level,
            tokens_before=tokens,
            tokens_after=tokens,
        )
