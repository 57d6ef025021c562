"""An assistant, as far as its tools go: the official client of MCP, called from tests that are not
asynchronous."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from tests.waiting import PATIENCE

Calls = list[tuple[str, dict[str, Any]]]


class RefusedError(Exception):
    """A tool said that it could not."""


class Assistant:
    """Calls tools; what they answer, or RefusedError with what they said. `connect` gives the client."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect

    def tools(self) -> dict[str, Any]:
        """The tools by name."""

        async def ask() -> dict[str, Any]:
            async with self._connect() as client:
                return {tool.name: tool for tool in (await client.list_tools()).tools}

        return anyio.run(ask)

    def call(self, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
        """The answers, those that are refusals as RefusedError."""

        async def ask() -> list[Any]:
            found: list[Any] = []
            async with self._connect() as client:
                for name, arguments in calls:
                    result = await client.call_tool(name, arguments, read_timeout_seconds=PATIENCE)
                    text = "".join(each.text for each in result.content if each.type == "text")
                    found.append(RefusedError(text) if result.is_error else result.structured_content)
            return found

        return anyio.run(ask)

    def one(self, name: str, **arguments: Any) -> Any:
        """The answer of one tool. Raises RefusedError."""
        [found] = self.call((name, arguments))
        if isinstance(found, RefusedError):
            raise found
        return found


def over_http(url: str, token: str) -> Assistant:
    """Of the service at `url`."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[Client]:
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as http,
            Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
        ):
            yield client

    return Assistant(connect)


def over_stdio(home: Path, *arguments: str, **environment: str) -> Assistant:
    """Of the command in a process of its own."""
    command = str(Path(sys.executable).with_name("datapruner"))
    plain = {name: value for name, value in os.environ.items() if not name.startswith("DATAPRUNER_")}
    given = plain | {"DATAPRUNER_HOME": str(home)} | environment
    return Assistant(
        lambda: Client(StdioServerParameters(command=command, args=["mcp", *arguments], env=given))
    )
