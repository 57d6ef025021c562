"""A job's questions from code that is not asynchronous: batch by batch, a batch's rows at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

Row = TypeVar("Row")
Outcome = TypeVar("Outcome")


def in_batches(
    batches: Iterable[Sequence[Row]], ask: Callable[[Row], Awaitable[Outcome]], teacher: Any
) -> Iterator[list[Outcome]]:
    """What `ask` gives for each row of a batch, in its order, before the next batch is looked at.

    `teacher` is open meanwhile; how many rows it is asked about at a time is its own to bound. What `ask`
    raises cancels the other rows and is raised.
    """

    async def outcomes(rows: Sequence[Row]) -> list[Outcome]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_awaited(ask(row))) for row in rows]
        return [task.result() for task in tasks]

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        runner.run(stack.enter_async_context(teacher))
        try:
            for batch in batches:
                yield runner.run(outcomes(batch))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            runner.run(stack.aclose())


async def _awaited(answer: Awaitable[Outcome]) -> Outcome:
    return await answer
