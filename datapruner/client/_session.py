"""Sending requests and reading their answers, with the one retry layer of the client.

A POST carries an Idempotency-Key, the same for all its attempts, so that the service does once what was
asked once. A service that dies holds the key for a while, so whoever is told that the first attempt is still
at work waits for it longer than for one that fails. A broken body of a streamed answer is its reader's to
take up again: see `_streams`.
"""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

import httpx

from datapruner.client import _problems
from datapruner.client._request import Request
from datapruner.client._wire import Wire
from datapruner.errors import DataprunerError, ServiceError, UsageError
from datapruner.http.retries import Retries, refused_for_now, repeatable, retry_after

T = TypeVar("T")
_FIRST_TRIES = 2  # what never answered is more likely a wrong URL than a service that restarts


class Session:
    """A wire with patience."""

    def __init__(self, wire: Wire, retries: Retries) -> None:
        self.wire = wire
        self.retries = retries
        self._reached = False

    async def ask(self, request: Request[T]) -> T:
        """The answer to a request. Raises DataprunerError."""
        return request.read(await self._send(request, stream=False))

    @asynccontextmanager
    async def opened(self, request: Request[None]) -> AsyncIterator[httpx.Response]:
        """An answer whose body is read by the block. Raises DataprunerError."""
        response = await self._send(request, stream=True)
        try:
            yield response
        finally:
            await self.wire.release(response)

    async def again(self, failures: int, error: httpx.RequestError | None, what: str) -> None:
        """Wait before taking up a body that broke `failures` times in a row. Raises ServiceError."""
        pause = self.retries.pause(failures)
        if pause is None:
            raise _unreachable(self.wire, error, what) from error
        await self.wire.pause(pause)

    async def _send(self, request: Request[T], *, stream: bool) -> httpx.Response:
        key = uuid.uuid4().hex
        if request.upload is not None:
            digest = await self.wire.apart(_sha256, request.upload)
            request = replace(request, form={**request.form, "sha256": digest})
        failures, waited = 0, 0.0
        while True:
            failures += 1
            try:
                response = await self._attempt(request, key, stream)
            except httpx.RequestError as error:
                pause = self.retries.pause(failures) if repeatable(request.method, error) else None
                if not self._reached and failures > _FIRST_TRIES and isinstance(error, httpx.ConnectError):
                    pause = None
                if pause is None:
                    raise _unreachable(self.wire, error, f"{request.method} {request.path}") from error
            else:
                self._reached = True
                if response.is_success:
                    return response
                problem = await self._failure(response)
                pause = None
                if refused_for_now(response):
                    if response.status_code == httpx.codes.CONFLICT and waited < self.retries.patience:
                        failures = 1
                    pause = self.retries.pause(failures, retry_after(response))
                if pause is None:
                    raise problem
            waited += pause
            await self.wire.pause(pause)

    async def _attempt(self, request: Request[T], key: str, stream: bool) -> httpx.Response:
        headers = dict(request.headers)
        if request.method == "POST":
            headers["Idempotency-Key"] = key
        if request.content is not None:
            headers["Content-Type"] = "application/json"
        with contextlib.ExitStack() as stack:
            files = None
            if request.upload is not None:
                # The body is the same each time, its boundary included: so is what the service takes it for.
                headers["Content-Type"] = f"multipart/form-data; boundary={key}"
                file = stack.enter_context(_opened(request.upload))
                files = {"file": (request.upload.name, file, "application/octet-stream")}
            made = self.wire.http.build_request(
                request.method,
                f"/v1{request.path}",
                params=dict(request.query),
                headers=headers,
                content=request.content,
                data=dict(request.form) or None,
                files=files,
            )
            return await self.wire.send(made, stream=stream)

    async def _failure(self, response: httpx.Response) -> DataprunerError:
        try:
            await self.wire.read(response)
        except httpx.RequestError:
            return ServiceError(f"the service answered {response.status_code} and broke off")
        finally:
            await self.wire.release(response)
        return _problems.failure(response)


def _opened(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", remedy="check its name") from error


def _sha256(path: Path) -> str:
    """Of a file that is about to be sent, so that the service can tell whether it came as it is."""
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreachable(wire: Wire, error: httpx.RequestError | None, what: str) -> ServiceError:
    base = str(wire.http.base_url).rstrip("/")
    if error is None:
        return ServiceError(f"{what}: {base} ends its answer early, again and again")
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return ServiceError(
            f"cannot reach {base}: {error or 'no connection in time'}",
            remedy="is `datapruner serve` running there?",
        )
    reason = "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error)
    return ServiceError(f"{what}: the connection to {base} broke: {reason or type(error).__name__}")
