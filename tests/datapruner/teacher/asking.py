"""Questions to a teacher from tests, which are not asynchronous."""

from __future__ import annotations

import asyncio

import pytest

from datapruner.teacher import Answer, Question, Teacher, TeacherError
from tests.datapruner.teacher.conftest import question


def ask(teacher: Teacher, *questions: Question) -> list[Answer]:
    """One after another."""

    async def main() -> list[Answer]:
        async with teacher:
            return [await teacher.ask(each) for each in questions]

    return asyncio.run(main())


def ask_each(teacher: Teacher, questions: list[Question]) -> dict[str, Answer | TeacherError]:
    """One after another; the answer or the error of each row."""
    found: dict[str, Answer | TeacherError] = {}

    async def main() -> None:
        async with teacher:
            for each in questions:
                try:
                    found[each.row] = await teacher.ask(each)
                except TeacherError as error:
                    found[each.row] = error

    asyncio.run(main())
    return found


def ask_at_once(teacher: Teacher, questions: list[Question]) -> list[Answer]:
    """All together. Raises the first error."""

    async def main() -> list[Answer]:
        async with teacher:
            try:
                async with asyncio.TaskGroup() as group:
                    asked = [group.create_task(teacher.ask(each)) for each in questions]
            except ExceptionGroup as stopped:
                raise stopped.exceptions[0] from None
            return [task.result() for task in asked]

    return asyncio.run(main())


def failure(teacher: Teacher) -> TeacherError:
    """What asking it one question fails with."""
    with pytest.raises(TeacherError) as caught:
        ask(teacher, question())
    return caught.value
