"""A balancer for tests: each request goes to a service that says it is ready; what fails there has failed.

It does what one in front of several services does at the least, and nothing that would hide a fault of
theirs: a request is sent once, to the next ready service in turn, over a connection of its own. Answers are
passed on as they come. Without a ready service, and for one that cannot be reached, there is 502.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx

_LOOK_SECONDS = 0.5
_LARGEST_HEAD = 1 << 16
_PIECE = 1 << 16
_BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_CONNECTION = re.compile(rb"\r\nconnection:[^\r]*", re.IGNORECASE)


class Balancer:
    """`upstreams` are the addresses of services, to be changed as they come and go; `ready` those that are.

    `opening` is how many requests were given a service and are not yet on their way to it.
    """

    def __init__(self) -> None:
        self.upstreams: set[str] = set()
        self.ready: list[str] = []
        self.opening = 0
        self._turn = 0
        self._serving: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Its address, while it works."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_LARGEST_HEAD)
        looking = asyncio.create_task(self._look())
        host, port = server.sockets[0].getsockname()
        try:
            yield f"http://{host}:{port}"
        finally:
            looking.cancel()
            server.close()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)

    async def _look(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                ready = []
                for upstream in sorted(self.upstreams):
                    with contextlib.suppress(httpx.TransportError):
                        answer = await client.get(f"{upstream}/v1/ready", headers={"Connection": "close"})
                        if answer.status_code == 200:
                            ready.append(upstream)
                self.ready = [upstream for upstream in ready if upstream in self.upstreams]
                await asyncio.sleep(_LOOK_SECONDS)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                upstream = self._next()
                if upstream is None:
                    writer.write(_BAD_GATEWAY)
                    return
                await self._pass(head, upstream, reader, writer)
            finally:
                writer.close()

    def _next(self) -> str | None:
        self._turn += 1
        return self.ready[self._turn % len(self.ready)] if self.ready else None

    async def _pass(
        self, head: bytes, upstream: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        address = urlsplit(upstream)
        self.opening += 1
        try:
            answers, asks = await asyncio.open_connection(address.hostname, address.port)
        except OSError:
            writer.write(_BAD_GATEWAY)
            return
        finally:
            self.opening -= 1
        asks.write(_CONNECTION.sub(b"", head)[:-4] + b"\r\nConnection: close\r\n\r\n")
        sending = asyncio.create_task(_copy(reader, asks))
        try:
            await _copy(answers, writer)
        finally:
            sending.cancel()
            asks.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
