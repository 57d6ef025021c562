"""A page of a listing, and a claim, cost the same however much there is: what databases do for them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, insert, text
from sqlalchemy.orm import Session

from datapruner.catalog import datasets, exports, jobs, runs, schedules
from datapruner.catalog.database import Database
from datapruner.catalog.models import (
    Dataset,
    Delivery,
    Export,
    Fire,
    Job,
    Project,
    Run,
    Schedule,
    Version,
    utcnow,
)
from datapruner.service import queue

MANY = 800
"""Rows of another project or parent, all of them newer than what is listed."""
FEW = 30
LIMIT = 10
ROWS_A_PAGE = 5 * FEW
"""That may be looked at: with so few, PostgreSQL may read them all, with what belongs to each of them."""


@pytest.fixture
def crowded(database: Database) -> Database:
    """Two projects with everything: a little in `p1`, with many datasets that nobody named, and in `p2` a lot
    that is newer."""
    sizes = {"p1": FEW, "p2": MANY}
    both = [(project, number) for project, size in sizes.items() for number in range(size)]
    ids = [f"{project}_{number:05}" for project, number in both]
    at = utcnow()
    rows: dict[type[Any], list[dict[str, Any]]] = {
        Project: [{"id": project, "name": project} for project in sizes],
        Dataset: [
            *(
                {"id": id_, "project_id": project, "name": id_}
                for id_, (project, number) in zip(ids, both, strict=True)
            ),
            *(
                {"id": f"p1_1{number:05}", "project_id": "p1", "name": f"prune_{number:022x}"}
                for number in range(MANY)
            ),
        ],
        Schedule: [
            {"id": id_, "project_id": project, "dataset_id": f"{project}_00000", "name": id_}
            | {"cron": "0 0 * * *", "timezone": "UTC", "run": {}}
            for id_, (project, number) in zip(ids, both, strict=True)
        ],
        Job: [
            {"id": id_, "project_id": project, "schedule_id": f"{project}_00000", "payload": {}}
            | {"kind": ("run", "export")[number % 2], "state": ("succeeded", "failed")[number // 2 % 2]}
            for id_, (project, number) in zip(ids, both, strict=True)
        ],
        Version: [
            {"id": id_, "dataset_id": f"{project}_00000", "number": number, "key": id_, "corpus_hash": "c"}
            | dict.fromkeys(("rows", "accepted", "rejected", "duplicates", "new_rows", "bytes"), 1)
            | {"report": {}}
            for id_, (project, number) in zip(ids, both, strict=True)
        ],
        Run: [
            {"id": id_, "project_id": project, "dataset_id": f"{project}_00000", "job_id": id_, "config": {}}
            | {"version_id": id_}
            for id_, (project, number) in zip(ids, both, strict=True)
        ],
        Export: [
            {"id": id_, "project_id": project, "run_id": f"{project}_00000", "job_id": id_, "format": "plain"}
            for id_, (project, number) in zip(ids, both, strict=True)
        ],
        Fire: [
            {
                "id": id_,
                "schedule_id": f"{project}_00000",
                "fire_at": at + timedelta(number),
                "job_id": id_,
                "outcome": "",
            }
            for id_, (project, number) in zip(ids, both, strict=True)
        ],
        Delivery: [
            {"id": id_, "schedule_id": f"{project}_00000", "job_id": id_, "attempt": 1, "seconds": 0.1}
            for id_, (project, number) in zip(ids, both, strict=True)
        ],
    }
    with database.write() as session:
        for table, content in rows.items():
            session.execute(insert(table), content)
    with database.write() as session:
        if not database.is_sqlite:  # SQLite's plans are those of a database that nobody has analysed
            session.execute(text("ANALYZE"))
    return database


LISTINGS: dict[str, Callable[[Session], object]] = {
    "datasets": lambda s: datasets.listing(s, "p1", limit=LIMIT),
    "datasets, further ones": lambda s: datasets.listing(s, "p1", limit=LIMIT, before="p1_00025"),
    "datasets, unnamed too": lambda s: datasets.listing(s, "p1", limit=LIMIT, unnamed=True),
    "versions": lambda s: datasets.versions(s, "p1_00000", limit=LIMIT, before=25),
    "jobs": lambda s: jobs.listing(s, "p1", limit=LIMIT, before="p1_00025"),
    "jobs by state": lambda s: jobs.listing(s, "p1", limit=LIMIT, state="failed"),
    "jobs by kind": lambda s: jobs.listing(s, "p1", limit=LIMIT, kind="export"),
    "runs": lambda s: runs.listing(s, "p1", limit=LIMIT, before="p1_00025"),
    "runs of a dataset": lambda s: runs.listing(s, "p1", limit=LIMIT, dataset_id="p1_00000"),
    "exports": lambda s: exports.listing(s, "p1", limit=LIMIT, before="p1_00025"),
    "exports of a run": lambda s: exports.listing(s, "p1", limit=LIMIT, run_id="p1_00000"),
    "schedules": lambda s: schedules.listing(s, "p1", LIMIT, "p1_00025"),
    "fires": lambda s: schedules.fires(s, "p1_00000", LIMIT, "p1_00025"),
    "deliveries": lambda s: schedules.deliveries(s, "p1_00000", LIMIT, None),
}


def test_a_page_looks_at_no_more_than_itself(crowded: Database) -> None:
    for name, listing in LISTINGS.items():
        [steps] = planned(crowded, listing)
        check(name, steps, crowded.is_sqlite)


def test_a_claim_looks_at_no_job_that_has_ended(crowded: Database) -> None:
    with crowded.write() as session:
        session.execute(insert(Job), [{"id": "q", "project_id": "p2", "kind": "run", "payload": {}}])
        session.get_one(Project, "p2").quota_jobs = 2
    with crowded.write() as session:
        queue.submit(session, project_id="p2", kind="run", payload={}, schedule_id="p2_00000")
    for steps in planned(crowded, lambda _: queue.claim(crowded, "worker", 30.0)):
        check("claim", steps, crowded.is_sqlite, claims=True)
    assert queue.claim(crowded, "worker", 30.0) is not None


def planned(db: Database, ask: Callable[[Session], object]) -> list[list[Any]]:
    """What the database says it does for each statement on jobs or what is listed."""
    found: list[list[Any]] = []
    explain = "EXPLAIN QUERY PLAN" if db.is_sqlite else "EXPLAIN (ANALYZE, FORMAT JSON)"

    def look(connection: Any, cursor: Any, statement: str, parameters: Any, *_: object) -> None:
        if statement.startswith(("SELECT", "UPDATE")) and "FROM" in statement:
            other = connection.connection.cursor()
            other.execute("SAVEPOINT looked")
            other.execute(f"{explain} {statement}", parameters)
            found.append(other.fetchall())
            other.execute("ROLLBACK TO looked")
            other.close()

    event.listen(db.engine, "before_cursor_execute", look)
    try:
        with db.read() as session:
            ask(session)
    finally:
        event.remove(db.engine, "before_cursor_execute", look)
    return found


def check(name: str, steps: list[Any], is_sqlite: bool, *, claims: bool = False) -> None:
    """Nothing that grows is read from its beginning to its end, nor sorted. A claim looks at every project
    and token, and sorts what waits."""
    if is_sqlite:
        said = [step[-1] for step in steps]
        assert claims or not [each for each in said if "TEMP B-TREE" in each], (name, said)
        scanned = {found[1] for each in said if (found := re.match(r"SCAN (\w+)", each))}
        assert scanned <= ({"projects", "tokens"} if claims else set()), (name, said)
    else:
        [[document]] = steps
        plan = (json.loads(document) if isinstance(document, str) else document)[0]["Plan"]
        assert looked_at(plan) <= ROWS_A_PAGE, (name, json.dumps(plan, indent=1))


def looked_at(plan: dict[str, Any]) -> float:
    """Rows that the tables below a step of PostgreSQL's plan gave, and those that were read for nothing."""
    here = 0.0
    if "Relation Name" in plan and plan["Node Type"] != "ModifyTable":
        removed = sum(plan.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck"))
        here = plan["Actual Loops"] * (plan["Actual Rows"] + removed)
    return here + sum(map(looked_at, plan.get("Plans", [])))
