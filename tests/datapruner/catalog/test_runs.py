"""Queries on runs, on both kinds of databases."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest
from sqlalchemy.orm import Session

from datapruner.catalog import datasets, exports, runs
from datapruner.catalog.database import Database
from datapruner.catalog.models import Job, Project, Run, Version, new_id
from datapruner.errors import ConflictError, NotFoundError
from datapruner.request.config import MethodChoice, RunConfig
from datapruner.request.keep import Keep
from datapruner.service import queue
from tests.waiting import PATIENCE

CONFIG = RunConfig(methods=[MethodChoice(name="random")], keep=Keep(share=0.5))


@dataclass
class Place:
    """A project with a dataset of one version."""

    db: Database
    project: str
    dataset: str
    version: str

    def start(self, session: Session, config: RunConfig = CONFIG, version: str | None = None) -> Run:
        job = queue.submit(session, project_id=self.project, kind="run", payload={})
        return runs.create(
            session,
            project_id=self.project,
            dataset_id=self.dataset,
            version_id=version,
            job_id=job.id,
            config=config,
        )

    def publish(self, session: Session, run: Run, state: str = "succeeded") -> Run:
        session.get_one(Job, run.job_id).state = state
        return runs.published(
            session,
            run,
            version_id=self.version,
            key=f"projects/{self.project}/runs/{run.id}/1",
            content_id="abc",
            lineage={"corpus": "c"},
            report={"kept": 1},
            measured=3,
            seconds=0.5,
            size=10,
        )


@pytest.fixture
def place(database: Database) -> Place:
    with database.write() as session:
        session.add(Project(id="prj_1", name="one"))
        session.add(Project(id="prj_2", name="two"))
        session.flush()
        dataset = datasets.create(session, "prj_1", "motley")
        counts = {"rows": 3, "accepted": 3, "rejected": 0, "duplicates": 0, "new_rows": 3, "bytes": 1}
        version = Version(
            id=new_id("ver"),
            dataset_id=dataset.id,
            number=1,
            key="k",
            corpus_hash="h",
            report={},
            job_id=None,
            **counts,
        )
        session.add(version)
        session.flush()
        return Place(database, "prj_1", dataset.id, version.id)


def test_a_run_stands_as_its_job_does_until_it_is_published(place: Place) -> None:
    with place.db.write() as session:
        run = place.start(session)
        assert runs.of_job(session, run.job_id) is run
    for state in ("queued", "running", "failed", "cancelled"):
        with place.db.write() as session:
            session.get_one(Job, run.job_id).state = state
        with place.db.read() as session:
            shown = runs.show(session, "prj_1", run.id)
            assert (shown.state, shown.dataset, shown.version) == (state, "motley", None)
            with pytest.raises(ConflictError, match=f"its job is {state}"):
                runs.find_published(session, "prj_1", run.id)
    with place.db.write() as session:  # an export of the same job goes on, and may fail
        place.publish(session, runs.find(session, "prj_1", run.id), state="failed")
    with place.db.read() as session:
        shown = runs.show(session, "prj_1", run.id)
        assert (shown.state, shown.version) == ("succeeded", 1)
        assert runs.find_published(session, "prj_1", run.id).measured == 3


def test_what_belongs_to_another_project_is_not_there(place: Place) -> None:
    with place.db.write() as session:
        run = place.publish(session, place.start(session))
    with place.db.read() as session:
        for query in (runs.find, runs.find_published, runs.show):
            with pytest.raises(NotFoundError, match=run.id):
                query(session, "prj_2", run.id)
        assert runs.listing(session, "prj_2", limit=9) == []
        assert runs.of_job(session, "job_none") is None


def test_runs_are_listed_the_newest_first(place: Place) -> None:
    with place.db.write() as session:
        other = datasets.create(session, "prj_1", "other")
        made = [place.start(session).id for _ in range(4)]
        runs.find(session, "prj_1", made[2]).dataset_id = other.id
    made.sort(reverse=True)  # of one millisecond chance decides
    with place.db.read() as session:
        found = [shown.run.id for shown in runs.listing(session, "prj_1", limit=3)]
        rest = [shown.run.id for shown in runs.listing(session, "prj_1", limit=3, before=found[-1])]
        assert found + rest == made
        [only] = runs.listing(session, "prj_1", limit=3, dataset_id=other.id)
        assert only.dataset == "other"


def test_the_last_run_of_a_schedule_is_found_by_version_and_configuration(place: Place) -> None:
    from datapruner.catalog.models import Schedule

    with place.db.write() as session:
        session.add(
            Schedule(
                id="sch_1",
                project_id="prj_1",
                dataset_id=place.dataset,
                name="nightly",
                cron="0 2 * * *",
                timezone="UTC",
                run={},
            )
        )
        session.flush()
        run, unpublished = place.start(session), place.start(session, version=place.version)
        for each in (run, unpublished):
            session.get_one(Job, each.job_id).schedule_id = "sch_1"
        place.publish(session, run)
    config = CONFIG.model_dump(mode="json")
    with place.db.read() as session:
        found = runs.of_schedule(session, "sch_1", place.version, config)
        assert found is not None
        assert found.id == run.id
        assert runs.of_schedule(session, "sch_1", place.version, config | {"engine": "ray"}) == found
        assert runs.of_schedule(session, "sch_1", place.version, config | {"seed": 1}) is None
        assert runs.of_schedule(session, "sch_1", "ver_other", config) is None
        assert runs.of_schedule(session, "sch_2", place.version, config) is None


def test_a_run_is_not_deleted_while_something_works_on_it(place: Place) -> None:
    with place.db.write() as session:
        run = place.start(session)
        with pytest.raises(ConflictError, match="its job is queued"):
            runs.delete(session, run, cascade=True)
        place.publish(session, run)
        job = queue.submit(session, project_id="prj_1", kind="export", payload={})
        export = exports.create(
            session, project_id="prj_1", run_id=run.id, job_id=job.id, format="plain-jsonl"
        )
    with place.db.write() as session:
        run = runs.find(session, "prj_1", run.id)
        assert runs.dependents(session, run) == {"exports": 1, "evaluations": 0}
        with pytest.raises(ConflictError, match="has 1 export") as caught:
            runs.delete(session, run, cascade=False)
        assert caught.value.remedy is not None
        assert "cascade=true" in caught.value.remedy
    with place.db.read() as session, pytest.raises(ConflictError, match=f"export {export.id} is in use"):
        runs.delete(session, runs.find(session, "prj_1", run.id), cascade=True)
    with place.db.write() as session:
        session.get_one(Job, job.id).state = "cancelled"
        prefixes = runs.delete(session, runs.find(session, "prj_1", run.id), cascade=True)
    assert prefixes == [f"projects/prj_1/exports/{export.id}", f"projects/prj_1/runs/{run.id}"]
    with place.db.read() as session:
        assert exports.listing(session, "prj_1", limit=9) == []
        with pytest.raises(NotFoundError):
            runs.find(session, "prj_1", run.id)


def test_a_run_is_not_deleted_under_an_export_that_is_being_asked_for(place: Place) -> None:
    with place.db.write() as session:
        run = place.publish(session, place.start(session))
    locked, outcome = threading.Event(), []

    def delete() -> None:
        locked.wait(PATIENCE)
        try:
            with place.db.write() as session:
                runs.delete(session, runs.find(session, "prj_1", run.id, lock=True), cascade=False)
        except ConflictError as error:
            outcome.append(error.message)

    other = threading.Thread(target=delete)
    other.start()
    with place.db.write() as session:
        found = runs.find_published(session, "prj_1", run.id, lock=True)
        locked.set()
        other.join(0.3)
        assert other.is_alive()  # it waits
        job = queue.submit(session, project_id="prj_1", kind="export", payload={})
        exports.create(session, project_id="prj_1", run_id=found.id, job_id=job.id, format="parquet")
    other.join(PATIENCE)
    assert outcome == [f"run {run.id} has 1 export"]
