"""`/mcp`: the tools for assistants over HTTP, for the caller of each request.

Notable choices:
- no sessions: a request has all that its answer needs, so any process of the service can give it;
- a bearer token alone is taken, not the cookie of a browser, whose other pages could send it as well;
- the library does not see that a client goes away, so its connection is watched here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from mcp.server.mcpserver import Context
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from api.problems import MissingScopeError, UnauthorizedError
from api.routes.sql import end_when_gone
from datapruner.assistants.project import ProjectSource
from datapruner.assistants.source import Source
from datapruner.assistants.tools import server
from datapruner.service import tokens
from datapruner.service.instance import Service

PATH = "/mcp"


class Endpoint:
    """The ASGI application at `PATH`; `serving` has to be open around it."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._manager: StreamableHTTPSessionManager | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        made = server(self._source, ProjectSource.sql_tables)
        # Only a token opens it, which pages of other hosts do not have: the Host header decides nothing.
        free = TransportSecuritySettings(enable_dns_rebinding_protection=False)
        made.streamable_http_app(json_response=True, stateless_http=True, transport_security=free)
        self._manager = made.session_manager
        async with self._manager.run():
            yield
        self._manager = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises UnauthorizedError and MissingScopeError."""
        request = Request(scope, receive)
        kind, _, secret = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not secret:
            raise UnauthorizedError("this needs a bearer token")
        service: Service = self._app.state.service
        caller = await run_in_threadpool(
            tokens.authenticate, service.db, secret.strip(), service.key, request.state.request_id
        )
        if caller is None:
            raise UnauthorizedError("the token is unknown, revoked or over")
        if "read" not in caller.scopes:
            raise MissingScopeError("read")
        source = scope["state"]["source"] = ProjectSource(service, caller)
        body = await request.body()
        watching = asyncio.create_task(end_when_gone(request, source.end))
        assert self._manager is not None
        try:
            await self._manager.handle_request(scope, _giving(body), send)
        finally:
            watching.cancel()
            source.end()  # this may be the end of the service, while its thread goes on

    def _source(self, ctx: Context) -> Source:
        request = ctx.request_context.request
        assert isinstance(request, Request), request
        source: ProjectSource = request.state.source
        return source


def _giving(body: bytes) -> Receive:
    """Gives a body that has been read, and then nothing more."""
    parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not parts:
            await asyncio.Event().wait()
        return parts.pop()

    return receive


def install(app: FastAPI) -> Endpoint:
    """Add the path to the application."""
    made = Endpoint(app)
    app.router.routes.append(Route(PATH, made, methods=["POST"]))
    return made
