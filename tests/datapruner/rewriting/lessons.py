"""Rows to rewrite, teachers to rewrite them, and what scripted teachers say."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from datapruner.http.retries import Retries
from datapruner.rewriting.outcomes import Rewritten
from datapruner.rewriting.reasoning import ReasoningRow
from datapruner.teacher import Teacher, load
from tests.datapruner.client.unruly import Behaviour, Handler, Unruly
from tests.datapruner.teacher.scripted import asked, says

THINKING = "\n\n".join(
    [
        "Okay, so I need to find 3 times 4 plus 2.",
        "Wait, maybe I should add first? No, multiplication comes first.",
        "3 times 4 is 12, and 12 plus 2 is 14.",
        "Let me check: 14 minus 2 is 12, and 12 divided by 4 is 3. Good.",
        "So the answer is 14. I am sure that the answer is 14.",
    ]
)
EASY = """## Analysis
3 * 4 + 2 is asked.
## Approach
3 * 4 = 12, and 12 + 2 = 14.
## Summary
Multiply, then add.
## Solution
It is \\boxed{14}."""


class Rewriter(Protocol):
    async def rewrite(self, row: ReasoningRow, teacher: Any) -> Rewritten: ...


def lesson(number: int = 0, **changes: Any) -> ReasoningRow:
    question = changes.pop("question", "What is 3 * 4 + 2?")
    parts = {"opening": "<think>\n", "reasoning": THINKING, "closing": "\n</think>\n"}
    given = {**parts, "answer": "The result is \\boxed{14}.", "reference": None} | changes
    return ReasoningRow(f"{number:064x}", ({"role": "user", "content": question},), **given)


def judged(level: str, rewrite: str) -> str:
    return f"<difficulty>{level}</difficulty>\n<rewrite>\n{rewrite}\n</rewrite>"


def run(
    rewriter: Rewriter, rows: Sequence[ReasoningRow], script: Unruly, store: Path
) -> list[Rewritten | BaseException]:
    """The rows, all at the same time."""

    async def main() -> list[Rewritten | BaseException]:
        settings = load(base_url=f"{script.url}/v1", model="m", concurrency=4)
        teacher = Teacher(settings, store=store)
        teacher.retries = Retries(count=1, first=0.01, longest=0.02, patience=5.0)
        async with teacher:
            tasks = (rewriter.rewrite(row, teacher) for row in rows)
            return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(main())


def one(rewriter: Rewriter, row: ReasoningRow, script: Unruly, tmp_path: Path) -> Rewritten:
    (found,) = run(rewriter, [row], script, tmp_path / "answers.sqlite")
    assert isinstance(found, Rewritten), found
    return found


def sent(script: Unruly) -> list[dict[str, Any]]:
    """What was asked, in order."""
    return [asked(seen) for seen in script.seen]


def by_question(answers: dict[str, str]) -> Behaviour:
    """The answer whose key is in the user message."""

    def behave(handler: Handler) -> None:
        user = asked(handler.seen)["messages"][-1]["content"]
        says(next(text for key, text in answers.items() if key in user))(handler)

    return behave
