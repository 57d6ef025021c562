"""Asking a teacher: bounded, repeated where it helps, within limits, and each question once.

Notable choices:
- one retry layer, here; HTTP's own is off. A question that runs out of time twice is given up: it would take
  as long again;
- two askers of one question wait for one answer;
- failures in a row stop the job, so that a teacher that is down does not turn each row of a corpus into an
  error. One that refuses a question (its content, its length) counts only while it has answered none.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakValueDictionary

import httpx

from datapruner.errors import UsageError
from datapruner.http.addresses import is_loopback
from datapruner.http.retries import Retries
from datapruner.teacher.errors import TeacherError, TeacherUnavailableError
from datapruner.teacher.limits import Budget, Tokens, Usage, estimated, text_tokens
from datapruner.teacher.questions import Answer, Question
from datapruner.teacher.replies import PassingError, Reply, read_reply
from datapruner.teacher.settings import TeacherSettings, store_path, variable
from datapruner.teacher.store import AnswerStore, Key

T = TypeVar("T")

_CONNECT_SECONDS = 10.0
_FIRST_TRIES = 3  # what never answered is more likely a wrong address than a service that restarts
_TIME_OUTS = 2
_MAX_REPLY_BYTES = 32 << 20
_LEAST_IN_A_ROW = 8


class Teacher:
    """An asynchronous context manager, which may be entered again after it was left. `usage` and `cost` say
    what was used; limits are of this object.

    `store`: the file of answers, in the home folder if not given. Raises UsageError when no teacher is set,
    StorageError when the file cannot be used.
    """

    def __init__(self, settings: TeacherSettings, *, store: Path | None = None) -> None:
        if not settings.configured:
            raise UsageError(
                "there is no teacher model", remedy=f"set {variable('base_url')} and {variable('model')}"
            )
        self.settings = settings
        self.retries = Retries(count=settings.retries, first=1.0, longest=60.0, patience=300.0)
        self._path = store or store_path()
        self._budget = Budget(settings)
        self._reached = False
        self._answered = False
        self._failed_in_a_row = 0

    def __repr__(self) -> str:
        return f"<Teacher {self.settings.model} at {self.settings.base_url}>"

    @property
    def usage(self) -> Usage:
        """Requests, answers and tokens so far."""
        return self._budget.usage

    @property
    def cost(self) -> float:
        """Money so far; 0 where no prices are given."""
        return self._budget.cost

    async def __aenter__(self) -> Self:
        # What waits belongs to an event loop, and a run may enter twice, each time in one of its own.
        self._slots = asyncio.Semaphore(self.settings.concurrency)
        self._asking: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
        self._budget.begin()
        # One thread has the store: no asker waits for the disk of another, and none is closed half-way.
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="answers")
        try:
            self._store = await self._on_disk(AnswerStore, self._path)
        except BaseException:
            self._disk.shutdown()
            raise
        base = httpx.URL(self.settings.base_url)
        self._http = httpx.AsyncClient(
            headers=self._headers(),
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=self.settings.concurrency),
            # As in our own client: no authorities to read without TLS, no proxy between a machine and itself.
            verify=True if base.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=not is_loopback(base),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._http.aclose()
        finally:
            closed = self._disk.submit(self._store.close)
            self._disk.shutdown()  # after the answers that are still to be written
        closed.result()

    async def ask(self, question: Question) -> Answer:
        """The answer, from the store if it is there.

        Raises TeacherError when this question has none, LimitReachedError and TeacherUnavailableError when it
        is no use to go on, StorageError when an answer cannot be kept.
        """
        key = Key.of(self.settings.model, question)
        lock = self._asking.setdefault(key, asyncio.Lock())
        async with lock:
            answer = await self._on_disk(self._store.get, key)
            if answer is None:
                async with self._slots:
                    answer = await self._answer(question)
                await self._on_disk(self._store.put, key, answer)
        self._budget.count(stored=answer.stored)
        return answer

    async def _answer(self, question: Question) -> Answer:
        body, tokens = self._body(question), estimated(question)
        failures, time_outs = 0, 0
        while True:
            try:
                reply, used = await self._attempt(body, tokens)
            except PassingError as passing:
                failures += 1
                time_outs += passing.error.reason == "time-out"
                pause = self.retries.pause(failures, passing.told)
                if pause is None or time_outs == _TIME_OUTS:
                    raise self._given_up(passing.error) from passing.__cause__
                if not self._reached and failures == _FIRST_TRIES and passing.error.reason == "connection":
                    raise self._unavailable(passing.error) from passing.__cause__
                if passing.told is not None:
                    self._budget.hold(pause)
                await asyncio.sleep(pause)
            except TeacherError as refused:
                raise refused if self._answered else self._given_up(refused) from None
            else:
                self._answered = True
                self._failed_in_a_row = 0
                return Answer(reply.text, reply.finish, used.prompt, used.completion, stored=False)

    async def _attempt(self, body: bytes, tokens: Tokens) -> tuple[Reply, Tokens]:
        """A reply and what it used. Raises PassingError and what `read_reply` does."""
        await self._budget.reserve(tokens)
        used = tokens  # if it is cut short or cancelled
        try:
            response, content = await self._send(body)
            used = Tokens()
            reply = read_reply(response, content, self.settings)
            used = Tokens(tokens.prompt, text_tokens(reply.text))
            if reply.usage is not None:
                used = Tokens(reply.usage.prompt_tokens, reply.usage.completion_tokens)
        except PassingError as passing:
            used = tokens if passing.billed else Tokens()
            raise
        finally:
            self._budget.settle(tokens, used)
        return reply, used

    async def _send(self, body: bytes) -> tuple[httpx.Response, bytes]:
        limit = self.settings.timeout_seconds
        try:
            async with (
                asyncio.timeout(limit),
                self._http.stream(
                    "POST", f"{self.settings.base_url}/chat/completions", content=body
                ) as response,
            ):
                self._reached = True
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > _MAX_REPLY_BYTES:
                        raise TeacherError(
                            f"the teacher's reply is longer than {_MAX_REPLY_BYTES >> 20} MiB",
                            reason="malformed",
                        )
                return response, bytes(content)
        except TimeoutError as error:
            late = TeacherError(
                f"the teacher gave no answer within {limit:g} s",
                reason="time-out",
                remedy=f"raise {variable('timeout_seconds')}, or lower {variable('concurrency')}",
            )
            raise PassingError(late, billed=True) from error
        except httpx.RequestError as error:
            unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            what = "cannot connect to the teacher" if unsent else "the connection to the teacher broke"
            cut = TeacherError(f"{what}: {error or type(error).__name__}", reason="connection")
            raise PassingError(cut, billed=not unsent) from error

    def _given_up(self, error: TeacherError) -> TeacherError | TeacherUnavailableError:
        self._failed_in_a_row += 1
        if self._failed_in_a_row < max(_LEAST_IN_A_ROW, self.settings.concurrency):
            return error
        return TeacherUnavailableError(
            f"{self._failed_in_a_row} questions in a row got no answer; the last: {error.message}",
            remedy=error.remedy
            or "start again when the teacher is well; what was answered is not asked again",
        )

    def _unavailable(self, error: TeacherError) -> TeacherUnavailableError:
        return TeacherUnavailableError(
            f"{error.message}, at {self.settings.base_url}",
            remedy=f"is it running? check {variable('base_url')}",
        )

    def _body(self, question: Question) -> bytes:
        body: dict[str, Any] = {
            "model": self.settings.model,
            "messages": [dict(message) for message in question.messages],
            "stream": False,
        }
        if self.settings.send_temperature:
            body["temperature"] = question.temperature
        if question.max_tokens is not None:
            body[self.settings.max_tokens_name] = question.max_tokens
        return json.dumps(body).encode()

    def _headers(self) -> dict[str, str]:
        # Answers are short, and an unpacked one could be of any length.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if key := self.settings.api_key.get_secret_value():
            headers["Authorization"] = f"Bearer {key}"
        return headers

    async def _on_disk(self, function: Callable[..., T], *arguments: Any) -> T:
        # Shielded, for an answer that has come is to be kept even when its asker is gone.
        return await asyncio.shield(
            asyncio.get_running_loop().run_in_executor(self._disk, function, *arguments)
        )
