"""The tools of a service's /mcp for an assistant that speaks over standard input and output."""

from __future__ import annotations

from contextlib import AsyncExitStack
from http import HTTPStatus
from typing import Any

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams

from datapruner.assistants.tools import INSTRUCTIONS
from datapruner.errors import ServiceError

_SECONDS = 60.0


async def over_stdio(url: str, token: str) -> None:
    """Pass calls on to the service at `url` and its answers back as they are, until the input ends.

    Raises ServiceError when the service cannot be reached, has no such tools, or refuses the token.
    """
    headers = {"Authorization": f"Bearer {token}"}
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=_SECONDS))
        await _check(http, url)
        transport = streamable_http_client(f"{url}/mcp", http_client=http)
        service = await stack.enter_async_context(Client(transport))

        async def tools(_: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
            return await service.list_tools(cursor=None if params is None else params.cursor)

        async def call(_: Any, params: CallToolRequestParams) -> CallToolResult:
            return await service.call_tool(params.name, params.arguments)

        passing: Server[Any] = Server(
            "datapruner", instructions=INSTRUCTIONS, on_list_tools=tools, on_call_tool=call
        )
        read, write = await stack.enter_async_context(stdio_server())
        await passing.run(read, write, passing.create_initialization_options())


async def _check(http: httpx2.AsyncClient, url: str) -> None:
    """Ask for nothing, to learn in plain words what is wrong."""
    ping = {"jsonrpc": "2.0", "id": 0, "method": "ping"}
    try:
        answer = await http.post(f"{url}/mcp", json=ping, headers={"Accept": "application/json"})
    except httpx2.HTTPError as error:
        raise ServiceError(f"{url} cannot be reached: {error}", remedy="is the service running?") from error
    if answer.status_code == HTTPStatus.NOT_FOUND:
        raise ServiceError(f"{url} has no /mcp", remedy="install datapruner[mcp] where it runs")
    if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise ServiceError(f"{url} refuses the token", remedy="DATAPRUNER_TOKEN has to have the scope read")
