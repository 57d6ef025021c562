"""Idempotency-Key on every POST: a repetition gets the first answer again instead of doing the work again.

The same key with the same method, path and body gets the stored status, headers and body, and
`Idempotency-Replayed: true`; with another request 422; while the first is still being answered 409.

Notable choices:
- the body is hashed while it streams to the application, and never held; the boundary of a form, which
  clients draw anew for each attempt, is left out of the hash;
- kept are successes and the client's errors, for a day; not 5xx, 401 and 429, which another attempt may mend,
  nor what was answered before the body was read to its end;
- an answer that is a file is not kept. When it has a Content-Location, a repetition is sent there with 303
  See Other; else the request has changed nothing (an SQL query) and is answered anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re

from fastapi.concurrency import run_in_threadpool
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems
from datapruner.errors import UsageError
from datapruner.service import idempotency
from datapruner.service.idempotency import FIELD, Claim, FirstAnswer
from datapruner.service.instance import Service

REPLAYED = "Idempotency-Replayed"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_LARGEST = 1 << 20
_TRANSIENT = (401, 408, 425, 429)
_JSON = ("application/json", "application/problem+json")
_NOT_KEPT = ("content-length", "date", "x-request-id")


class IdempotencyMiddleware:
    """Needs `scope["state"]["request_id"]`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = (
            Headers(scope=scope).get(FIELD) if scope["type"] == "http" and scope["method"] == "POST" else None
        )
        if key is None:
            await self._app(scope, receive, send)
            return
        try:
            if not _KEY.fullmatch(key):
                raise UsageError(
                    f"{FIELD} is not 1 to 255 printable characters", field=FIELD, remedy="use a UUID"
                )
            await self._answer(scope, receive, send, key)
        except UsageError as error:
            answer = problems.answer(error, scope["state"]["request_id"])
            await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, key: str) -> None:
        service: Service = scope["app"].state.service
        secret = Headers(scope=scope).get("authorization", "").partition(" ")[2].strip()
        claim = await run_in_threadpool(idempotency.claim, service, secret, key)
        if claim is None:
            await self._app(scope, receive, send)  # which refuses it
            return
        body = _Body(scope, receive)
        if not claim.first:
            await body.drain()
            first = claim.answer(body.fingerprint())
            answer = Response(first.content, first.status, headers={**first.headers, REPLAYED: "true"})
            await answer(scope, receive, send)
            return
        outgoing = _Answer(claim, body, send)
        renewing = asyncio.create_task(_renew(claim))
        try:
            await self._app(scope, body.receive, outgoing.send)
        finally:
            renewing.cancel()
            if not outgoing.settled:
                await run_in_threadpool(claim.release)


async def _renew(claim: Claim) -> None:
    while True:
        await asyncio.sleep(idempotency.RENEW_SECONDS)
        with contextlib.suppress(Exception):  # the next time may go well; what counts is the answer
            await run_in_threadpool(claim.renew)


class _Body:
    """A request's body on its way to the application, hashed as it passes."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = Headers(scope=scope)
        kind, options = parse_options_header(headers.get("content-type", ""))
        self._boundary = options.get(b"boundary", b"") if kind.startswith(b"multipart/") else b""
        self._hash = hashlib.sha256()
        self._held = b""
        self._receive = receive
        about = (scope["method"].encode(), scope["path"].encode(), scope["query_string"], kind)
        for part in about:
            self._hash.update(len(part).to_bytes(4) + part)
        self.complete = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._add(message.get("body", b""))
            self.complete = self.complete or not message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Read what is left. Ends early when the client goes away: then nobody sees the answer."""
        while not self.complete and (await self.receive())["type"] == "http.request":
            pass

    def fingerprint(self) -> str:
        whole = self._hash.copy()
        whole.update(self._held)
        return whole.hexdigest()

    def _add(self, chunk: bytes) -> None:
        if not self._boundary:
            self._hash.update(chunk)
            return
        # A boundary may lie across two chunks, so the end of each waits for what follows it.
        text = (self._held + chunk).replace(self._boundary, b"")
        cut = max(len(text) - len(self._boundary) + 1, 0)
        self._hash.update(text[:cut])
        self._held = text[cut:]


class _Answer:
    """An answer on its way to the client, held back until it is stored or found not to be one to keep."""

    def __init__(self, claim: Claim, body: _Body, send: Send) -> None:
        self._claim, self._body, self._send = claim, body, send
        self._held: list[Message] = []
        self._passing = False
        self.settled = False

    async def send(self, message: Message) -> None:
        if self._passing:
            await self._send(message)
            return
        self._held.append(message)
        start = self._held[0]
        headers = MutableHeaders(scope=start)
        content = b"".join(held.get("body", b"") for held in self._held[1:])
        if start["status"] >= 500 or start["status"] in _TRANSIENT or not self._body.complete:
            await self._pass()
        elif len(content) > _LARGEST or not _is_small(headers):
            if location := headers.get("content-location"):
                await self._keep(303, {"location": location}, b"")
            await self._pass()
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            kept = {name: value for name, value in headers.items() if name not in _NOT_KEPT}
            await self._keep(start["status"], kept, content)
            await self._pass()

    async def _keep(self, status: int, headers: dict[str, str], content: bytes) -> None:
        answer = FirstAnswer(status, headers, content)
        await run_in_threadpool(self._claim.keep, self._body.fingerprint(), answer)
        self.settled = True

    async def _pass(self) -> None:
        self._passing = True
        for message in self._held:
            await self._send(message)
        self._held.clear()


def _is_small(headers: Headers) -> bool:
    """Whether an answer is one to keep whole: a JSON document, or nothing."""
    kind = headers.get("content-type", "").partition(";")[0]
    return kind in _JSON or (not kind and headers.get("content-length", "0") == "0")
