"""Query processes that are ready before anybody asks, and a bound on how many work at the same time.

Notable choices:
- a process still answers one query only; the pool has another forked in its place;
- its place is filled a moment after it was taken: a small query is answered by then, and what the process
  prepares, which takes longer, does not compete with it for a core;
- one that is still preparing itself may be taken, it is further than a new one would be;
- waiting is bounded in time and number, since whoever waits holds a thread of the service;
- a statement whose `Ending` comes leaves its place, or the queue for one, at once.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

import pyarrow as pa

from datapruner.errors import BusyError, WorkerError
from datapruner.query.ending import EndedError, Ending
from datapruner.query.nursery import Child, Nursery
from datapruner.query.results import QueryResult
from datapruner.query.sandbox import Databases, Document, Parameters, Query, QueryLimits, ask
from datapruner.rows.formats import AnswerFormat

#: Seconds after which a statement that found no free place is turned away.
WAIT_SECONDS = 10.0
#: Statements that may wait for each that may run.
WAITING = 4
#: Seconds between taking a process and starting the next.
SETTLE_SECONDS = 0.05
#: Seconds between attempts to start a process on a machine that refuses.
RETRY_SECONDS = 1.0


class SandboxPool:
    """Runs queries as `sandbox.run_sql` does, in processes started beforehand. Safe to share between threads.

    `size` processes are kept ready, at most `concurrent` statements run; further ones wait their turn for at
    most `wait_seconds`. `close` ends everything; it is also a context manager.
    """

    def __init__(self, size: int, concurrent: int, *, wait_seconds: float = WAIT_SECONDS) -> None:
        self.size = size
        self.concurrent = concurrent
        self.wait_seconds = wait_seconds
        self._nursery = Nursery()
        self._idle: deque[Child] = deque()
        self._running = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="sql-pool", daemon=True)
        self._keeper.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(
        self,
        sql: str,
        databases: Databases,
        parameters: Parameters = None,
        limits: QueryLimits | None = None,
        *,
        tables: Mapping[str, pa.Table] = {},
    ) -> QueryResult:
        """As `sandbox.run_sql`. Raises BusyError when too many statements are at work for too long."""
        query = Query.of(sql, databases, tables, parameters, limits or QueryLimits())
        return self._answer(query, Ending()).result()

    def write(
        self,
        sql: str,
        databases: Databases,
        parameters: Parameters,
        limits: QueryLimits,
        kind: AnswerFormat,
        *,
        tables: Mapping[str, pa.Table],
        ending: Ending,
    ) -> Document:
        """As `run`, written in a format. Raises EndedError when its end comes before the answer."""
        return self._answer(Query.of(sql, databases, tables, parameters, limits, kind), ending)

    def _answer(self, query: Query, ending: Ending) -> Document:
        with (
            self._place(ending),
            contextlib.closing(self._take()) as child,
            ending.waking(child.kill),
        ):
            return ask(child, query)

    def close(self) -> None:
        """End all processes; statements at work have `wait_seconds` to finish."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
        self._keeper.join()
        while self._idle:
            self._idle.popleft().close()
        with self._changed:
            self._changed.wait_for(lambda: not self._running, self.wait_seconds)
        self._nursery.close()

    @contextlib.contextmanager
    def _place(self, ending: Ending) -> Iterator[None]:
        """One of the `concurrent` places."""
        with self._changed:
            if self._running >= self.concurrent or self._waiting:
                self._wait(ending)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _wait(self, ending: Ending) -> None:
        """Until there is a place, and nobody who came earlier waits for one."""
        if len(self._waiting) >= WAITING * self.concurrent:
            raise self._busy()
        me = object()
        self._waiting.append(me)

        def is_my_turn() -> bool:
            return self._running < self.concurrent and self._waiting[0] is me

        try:
            with ending.waking(self._look_again):
                if not self._changed.wait_for(lambda: ending.has_come or is_my_turn(), self.wait_seconds):
                    raise self._busy()
            if ending.has_come:
                raise EndedError
        finally:
            self._waiting.remove(me)
            self._changed.notify_all()  # who is the first now may have a place already

    def _look_again(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _busy(self) -> BusyError:
        return BusyError(
            f"{self.concurrent} SQL statements are at work already", remedy="try again in a few seconds"
        )

    def _take(self) -> Child:
        """The process that has been ready for longest, or a new one when there is none."""
        with self._changed:
            child = None
            while self._idle and child is None:
                first = self._idle.popleft()
                if first.is_alive():
                    child = first
                else:  # ended from outside
                    first.close()
            self._changed.notify_all()
        return child or self._nursery.start()

    def _keep(self) -> None:
        """Fill the places of processes that were taken, until the pool is closed."""
        while not self._closed.is_set():
            with self._changed:
                full = len(self._idle) >= self.size
                if full:
                    self._changed.wait_for(lambda: len(self._idle) < self.size or self._closed.is_set())
            if full:
                self._closed.wait(SETTLE_SECONDS)
            elif not self._closed.is_set():
                try:
                    child = self._nursery.start()
                except WorkerError:  # whoever asks for one is told why
                    self._closed.wait(RETRY_SECONDS)
                    continue
                with self._changed:
                    self._idle.append(child)
