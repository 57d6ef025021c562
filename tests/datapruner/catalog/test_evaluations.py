"""Queries on evaluations, on both kinds of databases."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from datapruner.catalog import datasets, evaluations, runs
from datapruner.catalog.database import Database
from datapruner.catalog.models import Evaluation, Job, Project
from datapruner.errors import ConflictError, NotFoundError
from datapruner.request.config import MethodChoice, RunConfig
from datapruner.request.evaluating import EvaluationSettings
from datapruner.request.keep import Keep
from datapruner.service import queue
from tests.evaluations import evaluation

SETTINGS = EvaluationSettings(held_out={"questions": "questions@1"})


@pytest.fixture
def run_id(database: Database) -> str:
    """A run whose job has ended."""
    with database.write() as session:
        session.add(Project(id="prj_1", name="one"))
        session.flush()
        dataset = datasets.create(session, "prj_1", "motley")
        job = queue.submit(session, project_id="prj_1", kind="run", payload={})
        job.state = "succeeded"
        config = RunConfig(methods=[MethodChoice(name="random")], keep=Keep(share=0.5))
        about = {"project_id": "prj_1", "dataset_id": dataset.id, "version_id": None, "job_id": job.id}
        return runs.create(session, config=config, **about).id


def start(session: Session, run_id: str, settings: EvaluationSettings = SETTINGS) -> Evaluation:
    job = queue.submit(session, project_id="prj_1", kind="evaluate", payload={})
    return evaluations.create(session, project_id="prj_1", run_id=run_id, job_id=job.id, settings=settings)


def publish(session: Session, row: Evaluation, **changed: object) -> Evaluation:
    session.get_one(Job, row.job_id).state = "succeeded"
    return evaluations.published(session, row, evaluation(**changed))


def test_an_evaluation_stands_as_its_job_does_until_what_came_of_it_is_there(
    database: Database, run_id: str
) -> None:
    with database.write() as session:
        row = start(session, run_id)
        assert evaluations.of_job(session, row.job_id) is row
        assert evaluations.document(row) is None
    with database.read() as session:
        assert evaluations.show(session, run_id, row.id).state == "queued"
        assert evaluations.latest(session, run_id) is None
        assert evaluations.verdicts(session, [run_id]) == {}
        for run, name in ((run_id, "evl_none"), ("run_none", row.id)):
            with pytest.raises(NotFoundError, match=f"run {run} has no evaluation {name}"):
                evaluations.show(session, run, name)
    with database.write() as session:
        publish(session, session.get_one(Evaluation, row.id))
    with database.read() as session:
        shown = evaluations.show(session, run_id, row.id)
        assert (shown.state, shown.evaluation.verdict) == ("succeeded", "better")
        assert evaluations.document(shown.evaluation) == evaluation()


def test_the_last_published_one_of_a_run_is_found_also_by_its_settings(
    database: Database, run_id: str
) -> None:
    with database.write() as session:
        first = publish(session, start(session, run_id))
        more = SETTINGS.model_copy(update={"seeds": 5})
        second = publish(session, start(session, run_id, more), verdict="worse")
        hasty = SETTINGS.model_copy(update={"seconds": 1.0})
        publish(session, start(session, run_id, hasty), verdict=None, cost=None)  # which hides no verdict
        start(session, run_id)
    with database.read() as session:
        last = evaluations.latest(session, run_id)
        assert last is not None
        assert last.id == second.id
        assert evaluations.verdicts(session, [run_id, "run_none"]) == {run_id: "worse"}
        found = [evaluations.of_run(session, run_id, each) for each in (SETTINGS, more)]
        assert [each and each.id for each in found] == [first.id, second.id]
        other = SETTINGS.model_copy(update={"held_out": {"questions": "questions@2"}})
        assert evaluations.of_run(session, run_id, other) is None
        listed = [each.evaluation.id for each in evaluations.listing(session, run_id, limit=2)]
        rest = evaluations.listing(session, run_id, limit=2, before=listed[-1])
        assert [each.evaluation.id for each in rest] == [second.id, first.id]


def test_a_run_goes_with_its_evaluations_but_not_while_one_is_at_work(
    database: Database, run_id: str
) -> None:
    with database.write() as session:
        row = start(session, run_id)
        with pytest.raises(ConflictError, match=f"evaluation {row.id} is at work"):
            runs.delete(session, runs.find(session, "prj_1", run_id), cascade=True)
    with database.write() as session:
        publish(session, session.get_one(Evaluation, row.id))
        run = runs.find(session, "prj_1", run_id)
        assert runs.dependents(session, run) == {"exports": 0, "evaluations": 1}
        with pytest.raises(ConflictError, match="has 1 evaluation "):
            runs.delete(session, run, cascade=False)
        runs.delete(session, run, cascade=True)
    with database.read() as session:
        assert session.get(Evaluation, row.id) is None


def test_a_dataset_goes_with_the_evaluations_of_its_runs_but_not_while_one_is_at_work(
    database: Database, run_id: str
) -> None:
    with database.write() as session:
        row = start(session, run_id)
        dataset = datasets.find(session, "prj_1", "motley")
        assert datasets.dependents(session, dataset.id)["evaluations"] == 1
        with pytest.raises(ConflictError, match=f"evaluate job {row.job_id} works with dataset motley"):
            datasets.delete(session, dataset)
    with database.write() as session:
        publish(session, session.get_one(Evaluation, row.id))
        datasets.delete(session, datasets.find(session, "prj_1", "motley"))
    with database.read() as session:
        assert session.get(Evaluation, row.id) is None
