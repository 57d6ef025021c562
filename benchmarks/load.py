"""Many clients at once against a service: what requests take, what is refused, and whether a job is lost.

    python -m benchmarks.load [--clients 50] [--seconds 60] [--workers 1]

Starts `datapruner serve` with the tiny model of the tests on a free port of this machine, in a fresh home
folder, and ends it. Each client uploads a small dataset, prunes it, exports the subset and downloads it.
While it waits it looks at its job, asks SQL and downloads another subset or a range of it; then it begins
again. So a client has one job at a time, and the queue is as long as there are clients. A 429 is no error:
the client comes back when Retry-After says. What the service logged is printed when there was a 5xx.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.figures import figure

MOST_REQUESTS = 5_000
"""Of one client: it stops then, whatever the time."""
_PAUSE = (0.05, 0.25)
FINISHED = ("succeeded", "failed", "cancelled")
_SQL = (
    "SELECT count(*), avg(length(content)) FROM {base}.turns",
    "SELECT quadrant, count(*) FROM {base}.sample_scores GROUP BY 1 ORDER BY 2 DESC",
    "SELECT s.row, m.* FROM {base}.samples s JOIN {base}.masks m USING (row) LIMIT 20",
)


@dataclass
class Observed:
    """What the clients saw: (status, seconds) of each request by operation, and the state of each job.

    Status 0 is a request that got no answer.
    """

    requests: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    jobs: dict[str, str] = field(default_factory=dict)
    drained: float = 0.0
    """Seconds after the last request until no job was at work any more."""

    def saw(self, answer: httpx.Response) -> dict[str, Any]:
        """The job in the answer, noted."""
        job: dict[str, Any] = answer.json()
        self.jobs[job["id"]] = job["state"]
        return job

    def unfinished(self) -> list[str]:
        return [job for job, state in self.jobs.items() if state not in FINISHED]

    @property
    def statuses(self) -> Counter[int]:
        return Counter(status for seen in self.requests.values() for status, _ in seen)

    @property
    def states(self) -> Counter[str]:
        return Counter(self.jobs.values())

    def table(self) -> str:
        """p50 and p99 of each operation in milliseconds, its statuses, and what became of the jobs."""
        lines = ["operation    requests     p50 ms     p99 ms  statuses"]
        for name, seen in sorted(self.requests.items()):
            p50, p99 = np.percentile([1000 * seconds for _, seconds in seen], [50, 99])
            counts = Counter(status for status, _ in seen)
            shown = ", ".join(f"{status}: {count}" for status, count in sorted(counts.items()))
            lines.append(f"{name:12}{len(seen):9,}{p50:11.1f}{p99:11.1f}  {shown}")
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        lines.append(
            f"jobs: {len(self.jobs)} accepted, {states}; the last one {self.drained:.1f} s after the end"
        )
        return "\n".join(lines)


@dataclass(frozen=True)
class Target:
    """A service, and what there is in it from the beginning."""

    url: str
    token: str
    model: str
    base: str
    """A dataset; what the clients make begins with its name."""
    subset: str
    """Path of a subset of it to download from."""

    @classmethod
    def prepare(cls, url: str, token: str, model: str) -> Target:
        """Make a dataset, a run and a subset of it."""
        base = f"load_{secrets.token_hex(4)}"
        rows = [_row(random.Random(number)) for number in range(200)]
        body = {"name": base, "rows": rows, "method": "qtuning", "keep": 0.5, "measuring": {"model": model}}
        with httpx.Client(base_url=url, headers=_bearer(token), timeout=180, trust_env=False) as client:
            answer = client.post("/v1/prune", json=body, headers={"Prefer": "wait=120"})
            assert answer.status_code == 200, answer.text
            return cls(url, token, model, base, answer.headers["Content-Location"])

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers=_bearer(self.token), timeout=180, trust_env=False)


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _row(chance: random.Random) -> dict[str, str]:
    number = chance.randrange(10**6)
    words = " ".join(chance.choices(("red", "green", "blue", "grey", "white"), k=chance.randint(2, 12)))
    return {"instruction": f"Describe number {number}.", "output": f"{number} is {words}."}


class _Client:
    """One of the many, with a connection of its own."""

    def __init__(self, target: Target, observed: Observed, number: int, is_time: Callable[[], bool]) -> None:
        self._target, self._observed, self._number, self._is_time = target, observed, number, is_time
        self._chance = random.Random(number)
        self._left = MOST_REQUESTS

    async def work(self) -> None:
        """Datasets, runs, exports and downloads until the time is over."""
        async with self._target.client() as self._http:
            turn = 0
            while self._goes_on():
                turn += 1
                await self._take_a_turn(f"{self._target.base}_{self._number}_{turn}")

    async def _take_a_turn(self, name: str) -> None:
        rows = b"".join(json.dumps(_row(self._chance)).encode() + b"\n" for _ in range(20))
        files = {"file": (f"{name}.jsonl", rows)}
        if await self._job("upload", "/v1/datasets", data={"name": name}, files=files) is None:
            return
        method = self._chance.choice(("qtuning", "length", "random"))
        asked = {"dataset": name, "method": method, "keep": 0.5, "measuring": {"model": self._target.model}}
        run = await self._job("run", "/v1/runs", json=asked)
        if run is None:
            return
        export = await self._job("export", "/v1/exports", json={"run": run["result"]["run_id"]})
        if export is not None:
            await self._ask("download", "GET", export["links"]["subset"])

    def _goes_on(self) -> bool:
        return self._is_time() and self._left > 0

    async def _job(self, operation: str, path: str, **content: Any) -> dict[str, Any] | None:
        """The job that the request started, once it has succeeded; None when it has not, or time is over."""
        started = await self._ask(operation, "POST", path, **content)
        if started is None or started.status_code != 202:
            return None
        job = self._observed.saw(started)
        while job["state"] not in FINISHED:
            if not self._goes_on():
                return None
            await self._meanwhile()
            answer = await self._ask("job", "GET", job["links"]["self"])
            if answer is not None and answer.status_code == 200:
                job = self._observed.saw(answer)
        return job if job["state"] == "succeeded" else None

    async def _meanwhile(self) -> None:
        match self._chance.choice(("sql", "download", "range")):
            case "sql":
                sql = self._chance.choice(_SQL).format(base=self._target.base)
                await self._ask("sql", "POST", "/v1/sql", json={"sql": sql})
            case "download":
                await self._ask("download", "GET", self._target.subset)
            case "range":
                await self._ask("range", "GET", self._target.subset, headers={"Range": "bytes=0-4095"})

    async def _ask(self, operation: str, method: str, path: str, **content: Any) -> httpx.Response | None:
        """The answer, None when there is none; then a pause."""
        self._left -= 1
        began = time.perf_counter()
        try:
            answer = await self._http.request(method, path, **content)
        except httpx.TransportError:
            answer = None
        status = 0 if answer is None else answer.status_code
        self._observed.requests[operation].append((status, time.perf_counter() - began))
        told = float(answer.headers["Retry-After"]) if answer is not None and status == 429 else 0.0
        await asyncio.sleep(told + self._chance.uniform(*_PAUSE))
        return answer


async def drive(
    target: Target,
    *,
    clients: int,
    seconds: float,
    drain: float = 600.0,
    enough: Callable[[Observed], bool] = lambda _: True,
) -> Observed:
    """Let the clients work for so long and until what was observed is `enough`, then wait for the jobs that
    they started; each at most `drain` seconds."""
    observed = Observed()
    until = time.monotonic() + seconds

    def is_time() -> bool:
        now = time.monotonic()
        return now < until or (now < until + drain and not enough(observed))

    await asyncio.gather(*(_Client(target, observed, number, is_time).work() for number in range(clients)))
    began = time.monotonic()
    async with target.client() as http:
        while (left := observed.unfinished()) and time.monotonic() - began < drain:
            for job in left:
                answer = await http.get(f"/v1/jobs/{job}")
                if answer.status_code == 200:
                    observed.saw(answer)
            await asyncio.sleep(0.5)
    observed.drained = time.monotonic() - began
    return observed


def main(argv: Sequence[str] | None = None) -> None:
    from tests.served import serving
    from tests.tiny_model import save_tiny_model

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--url", help="of a service that runs already, asked with --token, --model")
    parser.add_argument("--token", default="")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args(argv)

    def driven(url: str, token: str, model: str) -> Observed:
        target = Target.prepare(url, token, model)
        patience = 2 * given.seconds + 60
        return asyncio.run(drive(target, clients=given.clients, seconds=given.seconds, drain=patience))

    if given.url:
        observed = driven(given.url, given.token, given.model)
    else:
        with tempfile.TemporaryDirectory(prefix="datapruner-load-") as folder:
            model = save_tiny_model(Path(folder, "model"))
            with serving(Path(folder, "home"), model, workers=given.workers, sql_warm=2) as server:
                observed = driven(server.url, server.token, server.model)
                if max(observed.statuses) >= 500:
                    said = server.log.read_text().splitlines()
                    print("\n".join(line for line in said if "[info " not in line))
    print(f"{given.clients} clients, {given.seconds:.0f} s, {given.workers} worker(s)\n{observed.table()}")
    counts = observed.statuses
    failed = sum(count for status, count in counts.items() if status == 0 or status >= 500)
    every = "all requests"
    figure("failed requests", failed, against=every, baseline=counts.total(), unit="requests", at_most=0)
    lost = len(observed.unfinished())
    figure("lost jobs", lost, against="all jobs", baseline=len(observed.jobs), unit="jobs", at_most=0)


if __name__ == "__main__":
    main()
