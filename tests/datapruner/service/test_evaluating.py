"""Evaluations by jobs, in this process: the real queue and storage, and trainings of the tiny model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from datapruner.catalog import evaluations, runs
from datapruner.catalog.models import Dataset, Evaluation, Job, Project, Run, Schedule
from datapruner.errors import DeniedError
from datapruner.measuring.workers.local import IdleWorkers
from datapruner.progress import Silent
from datapruner.request.config import Measuring, MethodChoice, RunConfig
from datapruner.request.evaluating import EvaluationSettings
from datapruner.request.keep import Keep
from datapruner.schemas.jobs import JobResult
from datapruner.service import queue, retention
from datapruner.service.context import Context
from datapruner.service.storage import open_storage
from datapruner.service.usage import by_project
from datapruner.service.work import perform
from tests.datapruner.service.jobs_here import (
    StoppedError,
    again,
    dataset,
    ingest,
    opened,
    taken,
    upload,
    work,
)
from tests.datapruner.service.queues import LEASE
from tests.tiny_model import with_other_tokens

QUESTIONS = [
    {"instruction": f"What comes after {number}?", "output": f"After {number} comes {number + 1}."}
    for number in range(6)
]


@pytest.fixture(scope="module")
def ready(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, idle: IdleWorkers, corpus_file: Path
) -> tuple[Path, str]:
    """A home and the id of a run of random rows in it, in a project with a dataset of rows to hold out."""
    folder = tmp_path_factory.mktemp("ready")
    questions = folder / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS), encoding="utf-8")
    config = RunConfig(
        measuring=Measuring(model=str(tiny_folder)),
        methods=[MethodChoice(name="random")],
        keep=Keep(share=0.5),
    )
    (folder / "home").mkdir()
    with opened(folder / "home", [tiny_folder], idle) as context:
        with context.db.write() as session:
            session.add(Project(id="prj_1", name="default"))
        work(context, ingest=ingest(dataset(context, "questions"), upload(context, questions)))
        motley = dataset(context)
        payload = {"dataset_id": motley.id, "version_id": None, "config": config.model_dump(mode="json")}
        result = work(context, ingest=ingest(motley, upload(context, corpus_file)), run=payload)
    assert result.run_id is not None
    return folder / "home", result.run_id


@pytest.fixture
def context(
    ready: tuple[Path, str], tiny_folder: Path, idle: IdleWorkers, tmp_path: Path
) -> Iterator[Context]:
    """With a copy of that home."""
    home = shutil.copytree(ready[0], tmp_path / "home")
    with opened(home, [tiny_folder], idle) as made:
        yield made


@pytest.fixture
def run(context: Context, ready: tuple[Path, str]) -> Run:
    with context.db.read() as session:
        return runs.find(session, "prj_1", ready[1])


def asked(context: Context, run: Run, **settings: Any) -> queue.Lease:
    """An evaluation of the run, as it is asked for, taken by a worker."""
    wanted = EvaluationSettings(
        **{"held_out": {"questions": "questions@1"}, "tuning": "full", "seeds": 2} | settings
    )
    lease = taken(context, evaluate=wanted.model_dump(mode="json"))
    with context.db.write() as session:
        evaluations.create(session, project_id="prj_1", run_id=run.id, job_id=lease.job_id, settings=wanted)
    return lease


@pytest.fixture(scope="module")
def evaluated(
    ready: tuple[Path, str], tiny_folder: Path, idle: IdleWorkers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Context, JobResult]]:
    """What a job came to that evaluated the run, in another copy of the home."""
    home = shutil.copytree(ready[0], tmp_path_factory.mktemp("evaluated") / "home")
    with opened(home, [tiny_folder], idle) as context:
        with context.db.read() as session:
            run = runs.find(session, "prj_1", ready[1])
        yield context, perform(context, asked(context, run), Silent())


def test_a_job_trains_reads_and_publishes_the_verdict(
    ready: tuple[Path, str], evaluated: tuple[Context, JobResult]
) -> None:
    (context, result), run = evaluated, ready[1]
    assert result.run_id == run
    with context.db.read() as session:
        [shown] = evaluations.listing(session, run, limit=9)
    document = evaluations.document(shown.evaluation)
    assert document is not None
    assert (shown.evaluation.id, shown.evaluation.verdict) == (result.evaluation_id, document.verdict)
    assert document.run == run
    assert [arm.name for arm in document.arms] == ["random", "subset", "longest", "all"]
    [held_out] = document.held_out
    assert (held_out.source, held_out.rows) == ("questions@1", len(QUESTIONS))
    assert [each.control for each in document.overall] == ["random", "longest", "all"]


class StopsAfter(Silent):
    """Stops when so many trainings are done."""

    def __init__(self, trainings: int) -> None:
        self.left = trainings

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        self.left -= ", seed " in note
        if self.left == 0:
            raise StoppedError


def trainings(context: Context) -> dict[str, Any]:
    """What of trainings is in storage, and since when."""
    stored = context.storage.listing("projects/prj_1/evaluations")
    return {each.key.rpartition("/")[2]: each.modified for each in stored}


def machines(context: Context, s3_url: str, *names: str) -> list[Context]:
    """Such as have nothing yet, with the files of the context in an object store."""
    first, *others = (
        replace(context, storage=open_storage(s3_url, context.settings.home / name))
        for name in ("storing", *names)
    )
    for stored in list(context.storage.listing("projects/prj_1")):
        copy = context.settings.home / "copy"
        copy.write_bytes(context.storage.local(stored.key).read_bytes())
        first.storage.publish(copy, stored.key)
    return others


def test_a_job_that_is_taken_up_on_another_machine_goes_on_with_the_next_training(
    context: Context, run: Run, evaluated: tuple[Context, JobResult], s3_url: str
) -> None:
    """The files of the run are copied to an object store, in which two machines do the job."""

    first, second = machines(context, s3_url, "first", "second")
    lease = asked(context, run)
    with pytest.raises(StoppedError):
        perform(first, lease, StopsAfter(3))
    before = trainings(first)
    assert "plan.json" in before
    assert len(before) == 4
    result = perform(second, again(context, lease), Silent())
    after = trainings(second)
    assert {name: after[name] for name in before} == before
    assert after.keys() == trainings(evaluated[0]).keys()
    documents = []
    for found, done in (evaluated, (context, result)):
        with found.db.read() as session:
            documents.append(evaluations.document(session.get_one(Evaluation, done.evaluation_id)))
    one, other = documents
    assert one is not None
    assert other is not None
    assert one.overall == other.overall
    assert one.id == other.id


def test_another_machine_carries_masks_over_to_a_model_with_other_tokens(
    ready: tuple[Path, str], tiny_folder: Path, idle: IdleWorkers, tmp_path: Path, s3_url: str
) -> None:
    other = with_other_tokens(tmp_path / "other")
    home = shutil.copytree(ready[0], tmp_path / "home")
    with opened(home, [tiny_folder, other], idle) as context:
        with context.db.read() as session:
            run = runs.find(session, "prj_1", ready[1])
        lease = asked(context, run, model=str(other), seeds=1)
        [fresh] = machines(context, s3_url, "fresh")
        done = perform(fresh, lease, Silent())
        with context.db.read() as session:
            document = evaluations.document(session.get_one(Evaluation, done.evaluation_id))
    assert document is not None
    assert document.carried is not None
    assert document.carried.trained > 0


def test_a_lost_lease_publishes_no_verdict(context: Context, run: Run) -> None:
    lease = asked(context, run, seeds=1)

    class Meanwhile(Silent):
        """While it trains, another worker takes the job."""

        def stage(self, name: str, total: int | None, unit: str) -> None:
            if name == "training":
                again(context, lease)

    with pytest.raises(queue.LeaseLostError):
        perform(context, lease, Meanwhile())
    with context.db.read() as session:
        [shown] = evaluations.listing(session, run.id, limit=9)
    assert (shown.evaluation.document, shown.state) == (None, "running")


def test_a_run_that_is_to_be_evaluated_is_in_the_same_job_and_the_same_again_is_found(
    context: Context, run: Run
) -> None:
    with context.db.write() as session:
        session.add(
            Schedule(
                id="sch_1",
                project_id="prj_1",
                dataset_id=run.dataset_id,
                name="nightly",
                cron="0 2 * * *",
                timezone="UTC",
                run=run.config,
            )
        )
    wanted = EvaluationSettings(held_out={"questions": "questions"}, tuning="full", seeds=1)
    payload = {
        "run": {"dataset_id": run.dataset_id, "version_id": None, "config": run.config},
        "evaluate": wanted.model_dump(mode="json"),
    }
    results = []
    for _ in range(2):
        with context.db.write() as session:
            job = queue.submit(
                session, project_id="prj_1", kind="schedule", payload=payload, schedule_id="sch_1"
            )
        lease = queue.claim(context.db, "tester", LEASE)
        assert lease is not None
        assert lease.job_id == job.id
        results.append(perform(context, lease, Silent()))
        queue.finish(context.db, lease, results[-1].model_dump())
    first, second = results
    assert first.evaluation_id is not None
    assert (second.run_id, second.evaluation_id) == (first.run_id, first.evaluation_id)
    with context.db.read() as session:
        stored = session.get_one(Evaluation, first.evaluation_id)
    assert stored.settings["held_out"] == {"questions": "questions@1"}
    document = evaluations.document(stored)
    assert document is not None
    assert document.verdict == "no difference"
    assert not document.overall[0].covers_seeds


def test_a_model_outside_of_the_import_roots_is_refused_by_the_worker_too(context: Context, run: Run) -> None:
    with pytest.raises(DeniedError, match="nor a path in the import roots"):
        perform(context, asked(context, run, model="/etc"), Silent())


def test_what_trainings_read_is_swept_when_it_is_old_and_nobody_works_on_it(
    context: Context, run: Run
) -> None:
    lease = asked(context, run)
    with pytest.raises(StoppedError):
        perform(context, lease, StopsAfter(1))
    nothing = timedelta(seconds=-1)
    retention.sweep(context.db, context.storage, nothing)
    assert trainings(context)
    queue.fail(context.db, lease, {}, retry=False)
    assert retention.sweep(context.db, context.storage, timedelta(days=1)).files == 0
    [usage] = [each for each in by_project(context.db, context.storage) if each.kind == "evaluations"]
    assert (usage.files, usage.unneeded_bytes) == (2, 0)
    with context.db.write() as session:
        for job in session.scalars(select(Job)):
            job.state = "failed"
    retention.sweep(context.db, context.storage, nothing)
    assert trainings(context) == {}
    with context.db.read() as session:
        assert runs.find_published(session, "prj_1", run.id).key is not None
    assert any("run.duckdb" in each.key for each in context.storage.listing("projects/prj_1/runs"))


def test_a_run_that_is_being_evaluated_outlasts_its_retention(context: Context, run: Run) -> None:
    lease = asked(context, run)
    with context.db.write() as session:
        session.execute(update(Job).where(Job.id == run.job_id).values(state="succeeded"))
        session.get_one(Dataset, run.dataset_id).keep_runs = 0
    retention.apply(context.db, context.storage, run.dataset_id)
    with context.db.read() as session:
        assert runs.find(session, "prj_1", run.id)
    queue.cancelled(context.db, lease)
    retention.apply(context.db, context.storage, run.dataset_id)
    with context.db.read() as session:
        assert session.get(Run, run.id) is None
        assert session.scalars(select(Evaluation)).all() == []
