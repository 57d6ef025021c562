"""A dry run: what rewriting would ask of a teacher, and what that would cost. Nothing is asked.

Notable choice: a question that follows from an answer is made from a stand-in for it, since nobody knows the
answer yet; its length is a guess, and only the first attempt of each row counts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from datapruner.corpora import store
from datapruner.corpora.corpus import Corpus
from datapruner.errors import UsageError
from datapruner.progress import Progress
from datapruner.request.parts import Rewrite
from datapruner.rewriting import methods
from datapruner.rewriting.reasoning import ReasoningRow
from datapruner.rewriting.rewriters import TeacherRewriter
from datapruner.rewriting.rows import check, found_rows
from datapruner.teacher import Answer, Estimate, Question, TeacherError, TeacherSettings, estimate

_STAND_INS = {
    "dap-judge@1": "<difficulty>medium</difficulty>",
    "asap-direct@1": f"<thought>{'so ' * 400}</thought>",
}


def rehearse(
    wanted: Rewrite,
    rows: Any,
    mapping: Mapping[str, str],
    home: Path,
    progress: Progress,
    settings: TeacherSettings,
) -> Estimate:
    """What a run that rewrites these rows so would ask. Neither a model nor a teacher is needed.

    Raises UsageError, also for a method that asks no teacher, and as ingest does.
    """
    method = methods.find(wanted.method)
    check(wanted)
    if method.asks != "teacher":
        raise UsageError(f"method {method.name} asks no teacher", remedy="leave out the dry run")
    path = store.ingest_to(rows, mapping, home, progress)
    with Corpus(path) as corpus:
        progress.stage("counting questions", corpus.counts().unique, "samples")
        return estimate(all_questions(corpus, wanted, progress), settings)


def all_questions(corpus: Corpus, wanted: Rewrite, progress: Progress) -> Iterator[Question]:
    """What a teacher would be asked for every row that has reasoning, by a method that asks one."""
    method = methods.find(wanted.method)
    rewriter = cast(TeacherRewriter, method.make(method.settings(wanted.options), len))
    done = 0
    with asyncio.Runner() as runner:
        try:
            for batch in found_rows(corpus, wanted):
                for *_, row in batch:
                    if row is not None:
                        yield from runner.run(_asked(rewriter, row))
                done += len(batch)
                progress.at(done)
        finally:
            if hasattr(rewriter, "close"):
                rewriter.close()


async def _asked(rewriter: TeacherRewriter, row: ReasoningRow) -> list[Question]:
    teacher = _Rehearsal()
    with contextlib.suppress(_EnoughError):
        await rewriter.rewrite(row, teacher)
    return teacher.questions


class _EnoughError(TeacherError):
    """The last question that can be foreseen."""

    def __init__(self) -> None:
        super().__init__("a rehearsal has no answers", reason="refused")


class _Rehearsal:
    """Takes a teacher's place: writes questions down."""

    def __init__(self) -> None:
        self.questions: list[Question] = []

    async def ask(self, question: Question) -> Answer:
        self.questions.append(question)
        if question.prompt not in _STAND_INS:
            raise _EnoughError
        return Answer(_STAND_INS[question.prompt], "stop", 0, 0, stored=False)
