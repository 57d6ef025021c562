"""What people wait for: pruning over HTTP, SQL from the shell, pages of long listings.

    python -m benchmarks.latency [--model FOLDER] [--rows 20] [--times 5] [--clients 8] [--listed 100000]

prune   `POST /v1/prune` of a few new rows, and of the same again, at a warm service with one worker, from the
        request to the last byte of the subset. Baseline: the same pipeline in a process with a warm model,
        without HTTP, database, jobs and export.
sql     `datapruner sql` of a run of these rows, a process each. Baseline: `python -c "import duckdb; ..."` of
        the same statement on the same file.
pages   the newest page of runs and of jobs, and a claim, in a database of so many. Baseline: one of 100.

Each in turns with its baseline, medians; processor seconds are those of all processes. The model is by
default the tiny one of the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from sqlalchemy import insert

from benchmarks.figures import figure
from datapruner.catalog import jobs, migrations, runs
from datapruner.catalog.database import Database
from datapruner.catalog.models import Dataset, Job, Project, Run
from datapruner.service import queue

SQL = "SELECT keep, count(*) FROM sample_scores GROUP BY 1"
_FEW = 100
_WORDS = ("red", "green", "blue", "grey", "white", "river", "stone", "cloud")
_OURS = """
import json, sys, time
from pathlib import Path
from datapruner.measuring import measure
from datapruner.progress import Silent
from datapruner.request.settings import config_for
from datapruner.runs import pipeline
home, model = sys.argv[1:]
with measure.sharing(measure.Machine(("cpu",), threads=1)) as machine:
    for line in sys.stdin:
        began = time.perf_counter()
        config = config_for(None, {"method": "qtuning", "keep": 0.5, "model": model})
        pipeline.run(config, json.loads(line), Path(home), machine, Silent())
        print(time.perf_counter() - began, flush=True)
"""


def rows(count: int, chance: random.Random) -> list[dict[str, str]]:
    return [
        {
            "instruction": f"Tell me about number {chance.randrange(10**9)}.",
            "output": " ".join(chance.choices(_WORDS, k=chance.randint(10, 80))) + ".",
        }
        for _ in range(count)
    ]


def seconds_of(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def processor_seconds(process: psutil.Process) -> float:
    """Of a process and those below it, also those that have ended."""
    found = 0.0
    for each in (process, *process.children(recursive=True)):
        times = each.cpu_times()
        found += times.user + times.system
    return found


def show(name: str, times: Sequence[float], against: str, baseline: Sequence[float]) -> None:
    figure(name, 1e3 * median(times), against=against, baseline=1e3 * median(baseline), unit="ms")


def prune(folder: Path, model: Path, count: int, times: int, clients: int) -> None:
    from tests.served import serving

    chance = random.Random(1)
    with serving(folder / "service", model, workers=1, sql_warm=0) as server:

        def ask(named: tuple[str, Any]) -> float:
            name, some = named
            body = {"name": name, "rows": some, "method": "qtuning", "keep": 0.5}
            body |= {"measuring": {"model": str(model)}}
            wait = {"Prefer": "wait=600"}
            return seconds_of(
                lambda: server.client.post("/v1/prune", json=body, headers=wait).raise_for_status()
            )

        command = [sys.executable, "-c", _OURS, str(folder / "home"), str(model)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as direct:
            assert direct.stdin is not None
            assert direct.stdout is not None

            def here(some: Any) -> float:
                assert direct.stdin is not None
                assert direct.stdout is not None
                direct.stdin.write(json.dumps(some) + "\n")
                direct.stdin.flush()
                return float(direct.stdout.readline())

            warm = rows(count, chance)
            ask(("warm", warm))
            here(warm)
            service = psutil.Process(server.process.pid)
            found: dict[str, list[tuple[float, float, float]]] = {"new": [], "cached": []}
            for number in range(times):
                some = rows(count, chance)
                for kind, seen in found.items():
                    before = processor_seconds(service)
                    took = ask((f"{kind}_{number}", some))
                    seen.append((took, here(some), processor_seconds(service) - before))
            for kind, seen in found.items():
                taken, direct_times, used = zip(*seen, strict=True)
                print(f"the service took {median(used):.2f} processor seconds for {count} {kind} rows")
                show(
                    f"prune over HTTP, {count} {kind} rows", taken, "the pipeline in a process", direct_times
                )
                if kind == "cached":
                    alone = taken
            named = [(f"many_{number}", some) for number in range(clients)]
            with ThreadPoolExecutor(clients) as executor:
                together = list(executor.map(ask, named))
            show(f"prune over HTTP, cached, {clients} at once", together, "one alone", alone)
            direct.stdin.close()


def sql(folder: Path, times: int) -> None:
    home = folder / "home"
    database = next(iter((home / "runs").glob("*/run.duckdb")))
    environment = os.environ | {"DATAPRUNER_HOME": str(home)}
    bare = f"import duckdb; print(duckdb.connect({str(database)!r}, read_only=True).sql({SQL!r}).fetchall())"
    commands = {
        "ours": [sys.executable, "-m", "datapruner", "sql", SQL, "--run", database.parent.name],
        "bare": [sys.executable, "-c", bare],
    }
    found: dict[str, list[float]] = {name: [] for name in commands}
    used: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(times + 1):
        for name, command in commands.items():
            before = os.times()

            def run(command: Sequence[str] = command) -> None:
                subprocess.run(command, env=environment, check=True, capture_output=True)

            found[name].append(seconds_of(run))
            after = os.times()
            used[name].append(
                after.children_user - before.children_user + after.children_system - before.children_system
            )
    print(f"sql took {median(used['ours'][1:]):.2f} processor seconds, bare {median(used['bare'][1:]):.2f}")
    show("sql from the shell", found["ours"][1:], "DuckDB alone from the shell", found["bare"][1:])


def pages(folder: Path, listed: int, times: int) -> None:
    databases = {size: filled(folder / f"{size}.sqlite", size) for size in (_FEW, listed)}
    asked: dict[str, Callable[[Database], object]] = {
        "page of runs": lambda db: _read(db, lambda session: runs.listing(session, "p", limit=20)),
        "page of jobs": lambda db: _read(db, lambda session: jobs.listing(session, "p", limit=20)),
        "page of failed jobs": lambda db: _read(
            db, lambda session: jobs.listing(session, "p", limit=20, state="failed")
        ),
        "claim": lambda db: queue.claim(db, "nobody", 30.0),
    }
    for name, ask in asked.items():
        found: dict[int, list[float]] = {size: [] for size in databases}
        for _ in range(4 * times):
            for size, db in databases.items():
                if name == "claim":
                    with db.write() as session:
                        queue.submit(session, project_id="p", kind="run", payload={})
                found[size].append(seconds_of(lambda ask=ask, db=db: ask(db)))  # type: ignore[misc]
        show(f"{name}, {listed:,} of them", found[listed], f"{_FEW} of them", found[_FEW])
    for db in databases.values():
        db.close()


def _read(db: Database, ask: Callable[[Any], object]) -> None:
    with db.read() as session:
        ask(session)


def filled(path: Path, size: int) -> Database:
    """A catalog with so many finished jobs, each with its run."""
    db = Database(f"sqlite:///{path}")
    migrations.upgrade(db)
    with db.write() as session:
        session.add(Project(id="p", name="p", quota_jobs=1_000))
        session.flush()
        session.add(Dataset(id="d", project_id="p", name="d"))
        session.flush()
        made = [
            {"id": f"{number:08}", "project_id": "p", "kind": "run", "payload": {}}
            | {"state": "failed" if number % 10 == 0 else "succeeded"}
            for number in range(size)
        ]
        session.execute(insert(Job), made)
        session.execute(
            insert(Run),
            [
                {"id": job["id"], "project_id": "p", "dataset_id": "d", "job_id": job["id"], "config": {}}
                for job in made
            ],
        )
    return db


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--listed", type=int, default=100_000)
    parser.add_argument("--only", choices=("all", "pages"), default="all")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="datapruner-latency-") as name:
        folder = Path(name)
        model = given.model
        if model is None:
            from tests.tiny_model import save_tiny_model

            model = save_tiny_model(folder / "model")
        if given.only == "all":
            prune(folder, model.resolve(), given.rows, given.times, given.clients)
            sql(folder, given.times)
        pages(folder, given.listed, given.times)


if __name__ == "__main__":
    main()
