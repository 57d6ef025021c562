"""Steady load on a service, by clients that never repeat what failed: each failure is told."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import httpx

from datapruner.client._events import EventReader
from tests.waiting import PATIENCE

_KINDS = ("read", "sql", "write", "stream")
_PAUSES = {"read": 1.0, "sql": 2.0, "write": 1.0, "wait": 3.0}
"""Seconds after each kind of request."""


@dataclass
class Load:
    """`reads` are paths to ask for; rows are added to `dataset`, one in a request, each another one.

    `accepted` are ids of the jobs that were acknowledged, by the number in their row.
    """

    url: str
    token: str
    reads: tuple[str, ...]
    dataset: str
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    accepted: dict[int, str] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    """The state in which watched jobs ended."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def run(self) -> None:
        """Ask until it is `over`, then until what was begun has ended."""
        async with self.client() as client, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._again("read", self._read, client))
            tasks.create_task(self._again("sql", self._query, client))
            tasks.create_task(self._again("write", self._write, client))
            tasks.create_task(self._again("wait", self._wait, client))

    def went_round(self) -> Callable[[], bool]:
        """Tells whether everything was asked for once more, and a job has ended, since this was called."""
        before, ended = self.counts.copy(), len(self.ended)
        return lambda: all(self.counts[kind] > before[kind] for kind in _KINDS) and len(self.ended) > ended

    def client(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=2 * PATIENCE, trust_env=False)

    async def upload(self, client: httpx.AsyncClient, begun: asyncio.Event, go_on: asyncio.Event) -> None:
        """Add a row by a file of which the end is sent only when told to `go_on`."""
        number = next(self._numbers)
        row = json.dumps(_row(number)).encode()
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="slow.jsonl"\r\n\r\n'

        async def body() -> AsyncIterator[bytes]:
            yield head + row[:5]
            begun.set()
            await go_on.wait()
            yield row[5:] + b"\n\r\n--b--\r\n"

        answer = await self._asked(
            client,
            "upload",
            "POST",
            f"/v1/datasets/{self.dataset}/versions",
            content=body(),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
        if answer is not None:
            self.accepted[number] = answer.json()["id"]

    async def _again(
        self,
        kind: str,
        what: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]],
        client: httpx.AsyncClient,
    ) -> None:
        while not self.over.is_set():
            await what(client)
            await asyncio.sleep(_PAUSES[kind])

    async def _read(self, client: httpx.AsyncClient) -> None:
        for path in self.reads:
            await self._asked(client, "read", "GET", path)

    async def _query(self, client: httpx.AsyncClient) -> None:
        sql = {"sql": f"SELECT count(*) FROM {self.dataset}.samples"}
        await self._asked(client, "sql", "POST", "/v1/sql", json=sql)

    async def _write(self, client: httpx.AsyncClient) -> None:
        """Add a row, ask for the same again, which whichever service answers knows, and watch the job."""
        number, key = next(self._numbers), uuid.uuid4().hex
        jobs = set()
        for _ in range(2):
            answer = await self._asked(
                client,
                "write",
                "POST",
                f"/v1/datasets/{self.dataset}/versions",
                json={"rows": [_row(number)]},
                headers={"Idempotency-Key": key},
            )
            if answer is not None:
                jobs.add(answer.json()["id"])
        if len(jobs) != 1:
            self.failures.append(f"row {number} became the jobs {jobs}")
            return
        [self.accepted[number]] = jobs
        await self.watch(client, self.accepted[number])

    async def watch(self, client: httpx.AsyncClient, job: str) -> int:
        """Follow a job to its end; over how many streams. None may break off."""
        streams = 0
        while job not in self.ended:
            streams += 1
            self.counts["stream"] += 1
            try:
                async with client.stream("GET", f"/v1/jobs/{job}/events") as answer:
                    if answer.status_code != 200:
                        self.failures.append(f"stream: {answer.status_code}")
                        break
                    reader = EventReader()
                    async for chunk in answer.aiter_bytes():
                        for event in reader.feed(chunk):
                            about = json.loads(event.data)
                            if about["finished_at"]:
                                self.ended[job] = about["state"]
            except httpx.TransportError as error:
                self.failures.append(f"stream: {error!r}")
                break
        return streams

    async def _wait(self, client: httpx.AsyncClient) -> None:
        """Add a row and wait for the version; a service that leaves may say that it will be made."""
        number = next(self._numbers)
        answer = await self._asked(
            client,
            "wait",
            "POST",
            f"/v1/datasets/{self.dataset}/versions",
            json={"rows": [_row(number)]},
            headers={"Prefer": f"wait={PATIENCE:.0f}"},
        )
        if answer is not None:
            self.accepted[number] = answer.headers["Location"].rpartition("/")[2]

    async def _asked(
        self, client: httpx.AsyncClient, kind: str, method: str, path: str, **content: Any
    ) -> httpx.Response | None:
        """The answer; None, and a failure, for another one than 200 to 202, or none at all."""
        self.counts[kind] += 1
        try:
            answer = await client.request(method, path, **content)
        except httpx.TransportError as error:
            self.failures.append(f"{kind} {path}: {error!r}")
            return None
        if answer.status_code not in (200, 201, 202):
            self.failures.append(f"{kind} {path}: {answer.status_code} {answer.text[:500]}")
            return None
        return answer


def _row(number: int) -> dict[str, str]:
    return {"instruction": f"Add {number} and 1.", "output": f"That is {number + 1}."}
