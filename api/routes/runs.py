"""Runs: ask for one, see what came of it, and why."""

from __future__ import annotations

import contextlib
from typing import Annotated

from fastapi import APIRouter, Query, Request, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from sqlalchemy.orm import Session

from api.answers import job_answer
from api.dependencies import IdPage, Reader, RowPage, ServiceDep, Writer, page
from api.starting import started
from datapruner.catalog import datasets, runs
from datapruner.catalog import jobs as known_jobs
from datapruner.catalog.models import Dataset, Job, Run, Version
from datapruner.errors import ConflictError, StorageError
from datapruner.schemas.common import Dependent, Page
from datapruner.schemas.datasets import Deleted
from datapruner.schemas.jobs import JobAnswer
from datapruner.schemas.runs import Comparison, MaskAnswer, NewRun, ReportAnswer, RunAnswer, SampleAnswer
from datapruner.service import comparison_sets, queue, results
from datapruner.service.allowed_models import check_models
from datapruner.service.instance import Service
from datapruner.service.tokens import Caller

router = APIRouter(prefix="/runs", tags=["runs"])


@router.post(
    "",
    operation_id="create_run",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobAnswer,
    responses={201: {"model": RunAnswer, "description": "The run, with `Prefer: wait=N`"}},
)
async def create_run(request: Request, service: ServiceDep, caller: Writer, body: NewRun) -> Response:
    """Prune a dataset, or score it. Rows that this project measured before are not measured again.

    With `Prefer: wait=N` the answer is the finished run when it takes at most N seconds.
    """
    run, job = await run_in_threadpool(_start, service, caller, body)
    return await started(service, request, job, lambda: get_run(service, caller, run.id))


def _start(service: Service, caller: Caller, body: NewRun) -> tuple[Run, Job]:
    config = body.config({}, service.sql.run)
    check_models(service.settings, config.measuring)
    with service.db.write() as session:
        dataset = datasets.find(session, caller.project_id, body.dataset, lock=True)
        config = config.model_copy(update={"mapping": dict(dataset.mapping or {})})
        config = comparison_sets.pinned(session, caller.project_id, config)
        version = _version(session, dataset, body.version)
        wanted = {
            "dataset_id": dataset.id,
            "version_id": version.id,
            "config": config.model_dump(mode="json"),
        }
        job = queue.submit(
            session,
            project_id=caller.project_id,
            kind="run",
            payload={"run": wanted},
            token_id=caller.token_id,
            request_id=caller.request_id,
            max_attempts=service.settings.max_attempts,
        )
        run = runs.create(
            session,
            project_id=caller.project_id,
            dataset_id=dataset.id,
            version_id=version.id,
            job_id=job.id,
            config=config,
        )
        return run, job


def _version(session: Session, dataset: Dataset, number: int | None) -> Version:
    if number is not None:
        return datasets.version(session, dataset, number)
    version = datasets.latest(session, dataset.id)
    if version is None:
        raise ConflictError(
            f"dataset {dataset.name} has no version yet",
            remedy="wait for the job that reads its rows, or add a version",
            field="dataset",
        )
    return version


@router.get("", operation_id="list_runs")
def list_runs(
    service: ServiceDep,
    caller: Reader,
    paging: IdPage,
    dataset: Annotated[str | None, Query(description="only runs of this dataset")] = None,
) -> Page[RunAnswer]:
    """Runs, the newest first."""
    with service.db.read() as session:
        only = None if dataset is None else datasets.find(session, caller.project_id, dataset).id
        found = runs.listing(
            session, caller.project_id, limit=paging.limit + 1, before=paging.after, dataset_id=only
        )
    return page([_answer(shown) for shown in found], paging.limit, lambda run: run.id)


@router.get("/{run}", operation_id="get_run")
def get_run(service: ServiceDep, caller: Reader, run: str) -> RunAnswer:
    """A run: how it stands, and what came of it."""
    with service.db.read() as session:
        return _answer(runs.show(session, caller.project_id, run))


@router.delete("/{run}", operation_id="delete_run")
def delete_run(
    service: ServiceDep,
    caller: Writer,
    run: str,
    cascade: Annotated[bool, Query(description="delete its exports too")] = False,
    dry_run: Annotated[bool, Query(description="only say what would be deleted")] = False,
) -> Deleted:
    """Delete a run and its files. Its measurements stay for other runs to use."""
    if dry_run:
        with service.db.read() as session:
            found = runs.dependents(session, runs.find(session, caller.project_id, run))
        return Deleted(deleted=False, dependents=_dependents(found))
    with service.db.write() as session:
        row = runs.find(session, caller.project_id, run, lock=True)
        found = runs.dependents(session, row)
        prefixes = runs.delete(session, row, cascade=cascade)
    for prefix in prefixes:
        with contextlib.suppress(StorageError):  # without their rows the files are the sweep's to remove
            service.storage.delete(prefix)
    return Deleted(deleted=True, dependents=_dependents(found))


def _dependents(counts: dict[str, int]) -> list[Dependent]:
    return [Dependent(kind=kind, count=count) for kind, count in counts.items()]


@router.post("/{run}/cancel", operation_id="cancel_run")
def cancel_run(service: ServiceDep, caller: Writer, run: str) -> JobAnswer:
    """Stop the job that carries out the run; nothing happens when it has ended."""
    with service.db.write() as session:
        job_id = runs.find(session, caller.project_id, run).job_id
        job = known_jobs.find(session, caller.project_id, job_id)
        return job_answer(queue.request_cancel(session, job))


@router.get("/{run}/report", operation_id="get_report")
def get_report(service: ServiceDep, caller: Reader, run: str) -> ReportAnswer:
    """What became of every row, with the configuration and lineage that replay the run."""
    with service.db.read() as session:
        return results.report(runs.find_published(session, caller.project_id, run))


@router.get("/{run}/masks", operation_id="list_masks")
def list_masks(service: ServiceDep, caller: Reader, run: str, paging: RowPage) -> Page[MaskAnswer]:
    """Which tokens of which samples to train on, in row order."""
    with service.db.read() as session:
        row = runs.find_published(session, caller.project_id, run)
    found = results.masks(service.storage, row, limit=paging.limit + 1, after=paging.after)
    return page(found, paging.limit, lambda mask: mask.row)


@router.get("/{run}/samples/{sample}", operation_id="explain_sample")
def explain_sample(service: ServiceDep, caller: Reader, run: str, sample: str) -> SampleAnswer:
    """Why a sample was kept or pruned. `sample`: a row number, or a sample id or enough of its start."""
    with service.db.read() as session:
        row = runs.find_published(session, caller.project_id, run)
        corpus = session.get_one(Version, row.version_id).key
    return results.explanation(service.storage, row, corpus, sample, service.settings.home)


@router.get("/{run}/compare/{other}", operation_id="compare_runs")
def compare_runs(service: ServiceDep, caller: Reader, run: str, other: str) -> Comparison:
    """What two runs, of any versions, make of the samples that both know."""
    with service.db.read() as session:
        first = runs.find_published(session, caller.project_id, run)
        second = runs.find_published(session, caller.project_id, other)
    return results.comparison(service.storage, first, second)


def _answer(shown: runs.Shown) -> RunAnswer:
    run = shown.run
    return RunAnswer.model_validate(
        {name: getattr(run, name) for name in RunAnswer.model_fields if hasattr(run, name)}
        | {"dataset": shown.dataset, "version": shown.version, "state": shown.state}
    )
