"""What a small SQL statement costs over HTTP: on a warm service, in a row, from several clients, and cold.

    python -m benchmarks.sql_latency [--rows 20000] [--statements 100]

Starts `datapruner serve` in a fresh home, makes a dataset of made-up rows and asks it one aggregate. "paused"
leaves 200 ms between statements, as a person at a dashboard does at the least; "in a row" leaves none;
"clients" are four of them in a row at the same time; "cold" is the same service with no process kept ready.
"statement" is DuckDB's own part of it. Times are milliseconds from request to the end of the answer.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from benchmarks.figures import figure
from scorers.interpreter import PYTHON

DATASET = f"made_up_{secrets.token_hex(4)}"
SQL = f"SELECT n_turns, count(*), avg(n_chars) FROM {DATASET}.samples GROUP BY 1 ORDER BY 1"
PAUSE = 0.2
CLIENTS = 4


def client_of(url: str, token: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)


@contextlib.contextmanager
def service(home: Path, warm: int) -> Iterator[httpx.Client]:
    """The service on a free port with this many SQL processes ready, and a client of it."""
    settings = {"HOME": home, "PORT": 0, "SQL_WARM": warm, "LOG_LEVEL": "warning", "DEVICES": "cpu"}
    given = {f"DATAPRUNER_{name}": str(value) for name, value in settings.items()}
    command = [*PYTHON, "-m", "datapruner", "serve"]
    with subprocess.Popen(command, env=os.environ | given, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = next(
                line.split("listens on ")[1].split()[0] for line in process.stdout if "listens on" in line
            )
            token = (home / "admin-token").read_text().strip()
            with client_of(url, token) as client:
                yield client
        finally:
            process.terminate()


def make_dataset(client: httpx.Client, rows: int) -> None:
    made_up = [{"instruction": f"Add {row} and {row}.", "output": str(2 * row)} for row in range(rows)]
    job = client.post("/v1/datasets", json={"name": DATASET, "rows": made_up}).raise_for_status()
    while (state := client.get(job.headers["Location"]).json()["state"]) != "succeeded":
        assert state in ("queued", "running"), state
        time.sleep(0.1)


def ask(client: httpx.Client, pause: float = 0.0) -> tuple[float, float]:
    """Milliseconds of one statement over HTTP, and of DuckDB's part."""
    time.sleep(pause)
    begin = time.perf_counter()
    answer = client.post("/v1/sql", json={"sql": SQL}).raise_for_status()
    return (time.perf_counter() - begin) * 1e3, answer.json()["seconds"] * 1e3


def show(name: str, times: list[tuple[float, float]], seconds: float) -> None:
    whole, statement = np.array(times).T
    p50, p99 = np.percentile(whole, [50, 99])
    figure(name, p50, against="DuckDB's own part", baseline=float(np.median(statement)), unit="ms")
    print(f"    {len(times)} statements, p99 {p99:.1f} ms, {len(times) / seconds:.1f}/s")


def measure(name: str, client: httpx.Client, statements: int, pause: float = 0.0, clients: int = 1) -> None:
    begin = time.perf_counter()
    with ThreadPoolExecutor(clients) as executor:
        times = list(executor.map(lambda _: ask(client, pause), range(statements)))
    show(name, times, time.perf_counter() - begin)


def measure_warm(client: httpx.Client, rows: int, statements: int) -> None:
    make_dataset(client, rows)
    ask(client)  # the service's own first time
    measure("paused", client, statements, pause=PAUSE)
    measure("in a row", client, statements)
    measure(f"{CLIENTS} clients", client, statements, clients=CLIENTS)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--statements", type=int, default=100)
    parser.add_argument("--url", help="of a service that runs already: only the warm part, with --token")
    parser.add_argument("--token", default="")
    options = parser.parse_args(argv)
    if options.url:
        with client_of(options.url, options.token) as client:
            measure_warm(client, options.rows, options.statements)
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with service(home, warm=2) as client:
            measure_warm(client, options.rows, options.statements)
        with service(home, warm=0) as client:
            begin = time.perf_counter()
            show("first cold", [ask(client)], time.perf_counter() - begin)
            measure("cold", client, options.statements, pause=PAUSE)


if __name__ == "__main__":
    main()
