"""Both clients behind one call, so that each test is of both; and a server that misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from datapruner.client import AsyncClient, Client
from datapruner.http.retries import Retries
from tests.datapruner.client.unruly import Unruly, unruly_server
from tests.served import Server, serving

QUICK = Retries(count=3, first=0.01, longest=0.02)
Through = Callable[..., Any]
"""`through(url, lambda client: client.runs.get("x"))`: the result, or the list of results."""


def _blocking(url: str, use: Callable[[Any], Any], token: str = "secret", retries: Retries = QUICK) -> Any:
    with Client(url, token) as client:
        client._session.retries = retries
        result = use(client)
        return list(result) if isinstance(result, Iterator) else result


def _asynchronous(
    url: str, use: Callable[[Any], Any], token: str = "secret", retries: Retries = QUICK
) -> Any:
    async def main() -> Any:
        async with AsyncClient(url, token) as client:
            client._session.retries = retries
            result = use(client)
            return [item async for item in result] if isinstance(result, AsyncIterator) else await result

    return asyncio.run(main())


@pytest.fixture(params=[_blocking, _asynchronous], ids=["blocking", "async"])
def through(request: pytest.FixtureRequest) -> Through:
    return request.param


@pytest.fixture
def unruly() -> Iterator[Unruly]:
    """A server of the test's own: no request that another has given up can come late to it."""
    with unruly_server() as server:
        yield server


@pytest.fixture(scope="session")
def service(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The real service, for the tests of the client and of the commands, with datasets of their own."""
    with serving(tmp_path_factory.mktemp("client-service") / "home", tiny_folder) as running:
        yield running
