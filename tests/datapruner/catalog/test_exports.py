"""Queries on exports, on both kinds of databases."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from datapruner.catalog import datasets, exports, runs
from datapruner.catalog.database import Database
from datapruner.catalog.models import Export, Job, Project
from datapruner.errors import ConflictError, NotFoundError
from datapruner.request.config import MethodChoice, RunConfig
from datapruner.request.keep import Keep
from datapruner.service import queue


@pytest.fixture
def run_id(database: Database) -> str:
    with database.write() as session:
        session.add_all([Project(id="prj_1", name="one"), Project(id="prj_2", name="two")])
        session.flush()
        dataset = datasets.create(session, "prj_1", "motley")
        job = queue.submit(session, project_id="prj_1", kind="run", payload={})
        return runs.create(
            session,
            project_id="prj_1",
            dataset_id=dataset.id,
            version_id=None,
            job_id=job.id,
            config=RunConfig(methods=[MethodChoice(name="random")], keep=Keep(share=0.5)),
        ).id


def start(session: Session, run_id: str) -> Export:
    job = queue.submit(session, project_id="prj_1", kind="export", payload={})
    return exports.create(session, project_id="prj_1", run_id=run_id, job_id=job.id, format="parquet")


def publish(session: Session, export: Export) -> Export:
    session.get_one(Job, export.job_id).state = "succeeded"
    return exports.published(session, export, key="k", rows=5, size=99, sha256="00")


def test_an_export_stands_as_its_job_does_until_it_is_published(database: Database, run_id: str) -> None:
    with database.write() as session:
        export = start(session, run_id)
        assert exports.of_job(session, export.job_id) is export
        assert exports.of_job(session, "job_none") is None
    with database.read() as session:
        assert exports.show(session, "prj_1", export.id).state == "queued"
        with pytest.raises(ConflictError, match="its job is queued"):
            exports.find_published(session, "prj_1", export.id)
    with database.write() as session:
        publish(session, exports.find(session, "prj_1", export.id))
    with database.read() as session:
        assert exports.show(session, "prj_1", export.id).state == "succeeded"
        found = exports.find_published(session, "prj_1", export.id)
        assert (found.key, found.rows, found.bytes, found.sha256) == ("k", 5, 99, "00")


def test_what_belongs_to_another_project_is_not_there(database: Database, run_id: str) -> None:
    with database.write() as session:
        export = publish(session, start(session, run_id))
    with database.read() as session:
        for query in (exports.find, exports.find_published, exports.show):
            with pytest.raises(NotFoundError, match=export.id):
                query(session, "prj_2", export.id)
        assert exports.listing(session, "prj_2", limit=9) == []


def test_exports_are_listed_the_newest_first(database: Database, run_id: str) -> None:
    with database.write() as session:
        made = sorted((start(session, run_id).id for _ in range(4)), reverse=True)
    with database.read() as session:
        found = [shown.export.id for shown in exports.listing(session, "prj_1", limit=3, run_id=run_id)]
        rest = [shown.export.id for shown in exports.listing(session, "prj_1", limit=3, before=found[-1])]
        assert found + rest == made
        assert exports.listing(session, "prj_1", limit=3, run_id="run_other") == []
        dataset = datasets.find(session, "prj_1", "motley").id
        assert len(exports.listing(session, "prj_1", limit=9, dataset_id=dataset)) == len(found) + len(rest)
        assert exports.listing(session, "prj_1", limit=3, dataset_id="ds_other") == []


def test_the_published_export_of_a_run_is_found_by_format(database: Database, run_id: str) -> None:
    with database.write() as session:
        export = publish(session, start(session, run_id))
        start(session, run_id)  # not published
        publish(session, start(session, run_id)).max_length = 9  # without some rows
    with database.read() as session:
        found = exports.of_run(session, run_id, "parquet")
        assert found is not None
        assert found.id == export.id
        assert exports.of_run(session, run_id, "plain-jsonl") is None


def test_an_export_is_deleted_once_its_job_has_ended(database: Database, run_id: str) -> None:
    with database.write() as session:
        export = start(session, run_id)
    with database.read() as session, pytest.raises(ConflictError, match="its job is queued"):
        exports.delete(session, exports.find(session, "prj_1", export.id))
    with database.write() as session:
        session.get_one(Job, export.job_id).state = "failed"
        prefixes = exports.delete(session, exports.find(session, "prj_1", export.id))
        assert prefixes == [f"projects/prj_1/exports/{export.id}"]
    with database.read() as session, pytest.raises(NotFoundError):
        exports.find(session, "prj_1", export.id)
