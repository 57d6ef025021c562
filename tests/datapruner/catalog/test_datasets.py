"""Queries on datasets, versions and jobs, on both kinds of databases."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from datapruner.catalog import datasets, uploads
from datapruner.catalog import jobs as known_jobs
from datapruner.catalog.database import Database
from datapruner.catalog.models import (
    Base,
    Dataset,
    Delivery,
    Export,
    Fire,
    Job,
    Project,
    Run,
    Schedule,
    Upload,
    Version,
    new_id,
    utcnow,
)
from datapruner.errors import ConflictError, NotFoundError
from datapruner.schemas.datasets import content_name


@pytest.fixture(autouse=True)
def _projects(database: Database) -> None:
    with database.write() as session:
        session.add_all(Project(id=name, name=name) for name in ("ours", "theirs"))


def _version(dataset: Dataset, number: int) -> Version:
    return Version(
        id=new_id("ver"),
        dataset_id=dataset.id,
        number=number,
        key=f"corpora/{number}",
        corpus_hash="0",
        rows=number,
        accepted=number,
        rejected=0,
        duplicates=0,
        new_rows=1,
        bytes=10,
        report={},
    )


def _job(session: Session, kind: str, state: str, payload: dict[str, Any], **more: Any) -> Job:
    job = Job(id=new_id("job"), project_id="ours", kind=kind, state=state, payload=payload, **more)
    session.add(job)
    session.flush()
    return job


def _run(session: Session, dataset: Dataset, state: str) -> Run:
    job = _job(session, "run", state, {"run": {"dataset_id": dataset.id}})
    run = Run(id=new_id("run"), project_id="ours", dataset_id=dataset.id, job_id=job.id, config={})
    session.add(run)
    session.flush()
    return run


def test_a_dataset_is_found_by_name_and_by_id_in_its_project_only(database: Database) -> None:
    with database.write() as session:
        made = datasets.create(session, "ours", "sums", mapping={"prompt": "q"})
    with database.read() as session:
        assert datasets.find(session, "ours", "sums").mapping == {"prompt": "q"}
        assert datasets.find(session, "ours", made.id).name == "sums"
        for project, name in (("theirs", "sums"), ("theirs", made.id), ("ours", "sum"), ("ours", "a\0b")):
            with pytest.raises(NotFoundError):
                datasets.find(session, project, name)


def test_a_dataset_that_is_called_as_anothers_id_does_not_hide_it(database: Database) -> None:
    with database.write() as session:
        first = datasets.create(session, "ours", "first")
        second = datasets.create(session, "ours", first.id)
    with database.read() as session:
        assert datasets.find(session, "ours", first.id).id == first.id
        assert datasets.find(session, "ours", second.id).name == first.id


def test_a_name_is_given_once_in_a_project_and_the_transaction_goes_on(database: Database) -> None:
    with database.write() as session:
        datasets.create(session, "ours", "sums")
        datasets.create(session, "theirs", "sums")
        with pytest.raises(ConflictError):
            datasets.create(session, "ours", "sums")
        datasets.create(session, "ours", "other")
    with database.read() as session:
        with pytest.raises(ConflictError):
            datasets.check_free(session, "ours", "other")
        datasets.check_free(session, "theirs", "other")


def test_what_nobody_named_is_listed_only_when_it_is_asked_for(database: Database) -> None:
    with database.write() as session:
        digest = hashlib.sha256(b"rows").hexdigest()
        unnamed = [new_id("prune"), content_name(digest)]
        named = ["prune_nightly", "set_1", "prunes", unnamed[0] + "0", "a" + unnamed[0]]
        for name in unnamed + named:
            datasets.create(session, "ours", name)
    with database.read() as session:
        assert {each.name for each in datasets.listing(session, "ours", limit=9)} == set(named)
        everything = datasets.listing(session, "ours", limit=9, unnamed=True)
        assert {each.name for each in everything} == {*unnamed, *named}
        assert datasets.find(session, "ours", unnamed[0]).name == unnamed[0]


def test_pages_begin_after_what_was_seen(database: Database) -> None:
    with database.write() as session:
        made = [datasets.create(session, "ours", f"d{n}") for n in range(3)]
        session.add_all(_version(made[0], number) for number in (1, 2, 3))
        newest = sorted((dataset.id for dataset in made), reverse=True)
    with database.read() as session:
        assert [d.id for d in datasets.listing(session, "ours", limit=2)] == newest[:2]
        assert [d.id for d in datasets.listing(session, "ours", limit=2, before=newest[1])] == newest[2:]
        assert datasets.listing(session, "theirs", limit=2) == []
        assert [v.number for v in datasets.versions(session, made[0].id, limit=2)] == [3, 2]
        assert [v.number for v in datasets.versions(session, made[0].id, limit=2, before=2)] == [1]


def test_the_latest_version_is_the_one_with_the_highest_number(database: Database) -> None:
    with database.write() as session:
        grown, empty = (datasets.create(session, "ours", name) for name in ("grown", "empty"))
        session.add_all(_version(grown, number) for number in (1, 3, 2))
    with database.read() as session:
        latest = datasets.latest(session, grown.id)
        assert latest is not None
        assert latest.number == 3
        assert datasets.latest(session, empty.id) is None
        assert set(datasets.latest_of(session, [grown.id, empty.id])) == {grown.id}
        assert datasets.version(session, grown, 2).rows == 2
        with pytest.raises(NotFoundError, match="no version 4"):
            datasets.version(session, grown, 4)


def test_a_dataset_goes_with_everything_that_hangs_on_it_and_nothing_else(database: Database) -> None:
    with database.write() as session:
        goner, other = (datasets.create(session, "ours", name) for name in ("goner", "other"))
        for dataset in (goner, other):
            session.add_all(_version(dataset, number) for number in (1, 2))
            run = _run(session, dataset, "succeeded")
            schedule = Schedule(
                id=new_id("sch"),
                project_id="ours",
                dataset_id=dataset.id,
                name=f"nightly_{dataset.name}",
                cron="0 2 * * *",
                timezone="UTC",
                run={},
            )
            session.add(schedule)
            session.flush()
            job = _job(session, "schedule", "failed", {}, schedule_id=schedule.id)
            for row in (
                Export(id=new_id("exp"), project_id="ours", run_id=run.id, job_id=job.id, format="parquet"),
                Fire(
                    id=new_id("fir"),
                    schedule_id=schedule.id,
                    fire_at=utcnow(),
                    job_id=job.id,
                    outcome="started",
                ),
                Delivery(id=new_id("del"), schedule_id=schedule.id, job_id=job.id, attempt=1, seconds=0.1),
            ):
                session.add(row)
    before = _counts(database)
    with database.write() as session:
        found = datasets.find(session, "ours", "goner", lock=True)
        counts = datasets.dependents(session, found.id)
        keys = datasets.delete(session, found)
    assert counts == {"versions": 2, "runs": 1, "exports": 1, "evaluations": 0, "schedules": 1}
    assert f"projects/ours/corpora/{goner.id}" in keys
    assert len(keys) == 3
    halved = {name: count // 2 for name, count in before.items()}
    assert _counts(database) == halved | {"projects": 2, "jobs": before["jobs"], "uploads": 0}
    with database.read() as session:
        kept = datasets.find(session, "ours", "other")
        assert datasets.dependents(session, kept.id) == counts


def _counts(database: Database) -> dict[str, int]:
    with database.read() as session:
        tables = [table for table in Base.metadata.sorted_tables if table.name not in ("tokens", "replies")]
        return {table.name: session.scalar(select(func.count()).select_from(table)) or 0 for table in tables}


@pytest.mark.parametrize("work", ["ingest", "run", "export", "schedule"])
@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_dataset_that_a_job_works_with_stays(database: Database, work: str, state: str) -> None:
    with database.write() as session:
        dataset = datasets.create(session, "ours", "busy")
        if work == "ingest":
            _job(session, "ingest", state, {"ingest": {"dataset_id": dataset.id}})
        elif work == "run":
            _run(session, dataset, state)
        elif work == "export":
            run = _run(session, dataset, "succeeded")
            job = _job(session, "export", state, {"export": {}})
            session.add(
                Export(id=new_id("exp"), project_id="ours", run_id=run.id, job_id=job.id, format="parquet")
            )
        else:
            made = {"id": "sch", "project_id": "ours", "dataset_id": dataset.id, "name": "nightly"}
            session.add(Schedule(**made, cron="0 2 * * *", timezone="UTC", run={}))
            session.flush()
            _job(session, "schedule", state, {}, schedule_id="sch")
    with pytest.raises(ConflictError, match="works with dataset busy"), database.write() as session:
        datasets.delete(session, datasets.find(session, "ours", "busy", lock=True))
    with database.read() as session:
        assert datasets.find(session, "ours", "busy").id == dataset.id


def test_jobs_are_found_in_their_project_and_listed_by_state_and_kind(database: Database) -> None:
    with database.write() as session:
        made = [
            _job(session, kind, state, {}) for kind in ("run", "ingest") for state in ("queued", "failed")
        ]
        newest = sorted((job.id for job in made), reverse=True)
    with database.read() as session:
        assert known_jobs.find(session, "ours", newest[0]).id == newest[0]
        for project, job_id in (("theirs", newest[0]), ("ours", "job_0"), ("ours", "\0")):
            with pytest.raises(NotFoundError):
                known_jobs.find(session, project, job_id)
        listed = known_jobs.listing(session, "ours", limit=2)
        assert [job.id for job in listed] == newest[:2]
        rest = known_jobs.listing(session, "ours", limit=9, before=newest[1])
        assert [job.id for job in rest] == newest[2:]
        [one] = known_jobs.listing(session, "ours", limit=9, state="failed", kind="run")
        assert (one.state, one.kind) == ("failed", "run")


def test_an_upload_is_found_in_its_project_only(database: Database) -> None:
    with database.write() as session:
        session.add(Upload(id="upl", project_id="ours", key="k", name="rows", bytes=1, sha256="0"))
    with database.read() as session:
        assert uploads.find(session, "ours", "upl").name == "rows"
        with pytest.raises(NotFoundError):
            uploads.find(session, "theirs", "upl")
