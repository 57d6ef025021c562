"""What happens around every request: its id, its log line and figures, its size, and that no error escapes.

Notable choices:
- plain ASGI, as nothing here may hold a body or an answer in memory;
- the size is counted as the body comes: what Content-Length says is used to refuse early, never to trust.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems
from api.problems import TooLargeError
from api.routes import PREFIX
from datapruner.errors import UsageError
from datapruner.service.instance import Service
from datapruner.settings import Settings

REQUEST_ID = "X-Request-ID"
#: Largest body of an endpoint that takes no data, which is held in memory before the caller is known.
DOCUMENT_BYTES = 8 << 20
#: What a form adds to the file in it.
_FORM_BYTES = 1 << 20
_ID = re.compile(r"[A-Za-z0-9._:-]{1,100}")
_TAKES_DATA = re.compile(r"/v1/(prune|datasets|datasets/[^/]+/versions)")
_URLENCODED = "application/x-www-form-urlencoded"
_METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE", "PUT", "OPTIONS")
_QUIET = ("get_health", "get_readiness", "get_metrics")
_CLIENT_GONE = 499
_log = structlog.get_logger("datapruner.access")


class RequestMiddleware:
    """The outermost one. Puts `request_id` into the request's state and into every log line about it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        service: Service = scope["app"].state.service
        status, began = 0, time.perf_counter()

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                if service.stopping.leaving.is_set():
                    headers["Connection"] = "close"  # the client's next request goes to another one
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                with service.answering():
                    await self._app(scope, receive, answer)
            except ClientDisconnect:
                status = _CLIENT_GONE
            except Exception as error:
                _log.exception("request failed")
                if not status:  # else the connection breaks off, which tells the client as much
                    await problems.answer(error, request_id)(scope, receive, answer)
                status = 500
            finally:
                self._ended(scope, status or _CLIENT_GONE, time.perf_counter() - began)

    def _ended(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        operation = getattr(route, "operation_id", None) or "none"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        service: Service = scope["app"].state.service
        service.metrics.ended(method, operation, status, seconds)
        log: Callable[..., None] = _log.debug if operation in _QUIET and status < 400 else _log.info
        # Never the path that was sent: it may hold anything.
        path = "none"
        if route is not None and operation != "none":
            path = f"{PREFIX}{route.path}" if route.include_in_schema else route.path
        log("request", method=method, route=path, status=status, ms=round(seconds * 1000, 1))


class NulMiddleware:
    """Answers 404 to a path and 422 to a query that has a character with code 0, which no database takes.

    Names in paths and parameters go into queries as they are; bodies are looked at by `schemas.common`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error: Exception | None = None
        if scope["type"] == "http" and "\0" in scope["path"]:
            error = HTTPException(404)
        elif scope["type"] == "http" and b"%00" in scope["query_string"]:
            error = UsageError("the query has a character with code 0", remedy="leave %00 out")
        if error is None:
            await self._app(scope, receive, send)
        else:
            await problems.answer(error, scope["state"]["request_id"])(scope, receive, send)


class PlainPostMiddleware:
    """Takes a body that is declared as an urlencoded form for JSON: that is what `curl -d` declares whatever
    it sends, and no operation takes such forms; those of pages are left alone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(f"{PREFIX}/"):
            headers = MutableHeaders(scope=scope)
            if headers.get("content-type", "").partition(";")[0].strip().lower() == _URLENCODED:
                headers["content-type"] = "application/json"
        await self._app(scope, receive, send)


class SizeMiddleware:
    """Answers 413 to a body over the limit, as soon as that is known."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._data_bytes = settings.max_upload_bytes + _FORM_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        takes_data = scope["method"] == "POST" and _TAKES_DATA.fullmatch(scope["path"].rstrip("/"))
        limit = self._data_bytes if takes_data else min(DOCUMENT_BYTES, self._data_bytes)
        total, started = 0, False

        async def limited() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > limit:
                raise _too_large(limit)
            return message

        async def guarded(message: Message) -> None:
            nonlocal started
            if total <= limit or started:  # else whatever the application makes of it is not the answer
                started = True
                await send(message)

        said = Headers(scope=scope).get("content-length", "")
        if said.isdecimal() and int(said[:20]) > limit:
            total = limit + 1
        else:
            with contextlib.suppress(TooLargeError):
                await self._app(scope, limited, guarded)
        if total > limit and not started:
            await problems.answer(_too_large(limit), scope["state"]["request_id"])(scope, receive, send)


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(
        f"the body is longer than the {limit:,} bytes that are taken here",
        remedy="send less, or ask whoever runs the service for a larger DATAPRUNER_MAX_UPLOAD_BYTES",
    )
