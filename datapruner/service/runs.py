"""Runs: what there is, what they say, and their end. How they come about is in `service.submission`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from datapruner.catalog import evaluations, runs
from datapruner.catalog import jobs as job_rows
from datapruner.catalog.datasets import find as find_dataset
from datapruner.catalog.models import Run, Version
from datapruner.schemas.against import Against
from datapruner.schemas.datasets import Deleted
from datapruner.schemas.jobs import JobAnswer
from datapruner.schemas.reports import RunReport
from datapruner.schemas.runs import Comparison, MaskAnswer, ReportAnswer, RunAnswer, SampleAnswer
from datapruner.service import jobs, queue, results, retention
from datapruner.service.instance import Service
from datapruner.service.tokens import Caller

_EVALUATIONS = 20
"""Most that a report has."""


def listing(
    service: Service, caller: Caller, *, limit: int, before: str | None = None, dataset: str | None = None
) -> list[RunAnswer]:
    """The newest `limit` runs, those older than the id `before` and those of a dataset if these are given.

    Raises NotFoundError when there is no such dataset.
    """
    with service.db.read() as session:
        only = None if dataset is None else find_dataset(session, caller.project_id, dataset).id
        found = runs.listing(session, caller.project_id, limit=limit, before=before, dataset_id=only)
        told = evaluations.verdicts(session, [shown.run.id for shown in found])
    return [_answer(shown, told) for shown in found]


def show(service: Service, caller: Caller, run: str) -> RunAnswer:
    """Raises NotFoundError."""
    with service.db.read() as session:
        shown = runs.show(session, caller.project_id, run)
        return _answer(shown, evaluations.verdicts(session, [run]))


def delete(service: Service, caller: Caller, run: str, *, cascade: bool, dry_run: bool) -> Deleted:
    """Delete a run and its files, with `cascade` its exports and evaluations too; or only say what would go.

    Raises NotFoundError, and ConflictError as `catalog.runs.delete`.
    """
    if dry_run:
        with service.db.read() as session:
            counts = runs.dependents(session, runs.find(session, caller.project_id, run))
        return Deleted.of(counts, done=False)
    with service.db.write() as session:
        row = runs.find(session, caller.project_id, run, lock=True)
        counts = runs.dependents(session, row)
        keys = runs.delete(session, row, cascade=cascade)
    retention.delete_files(service.storage, keys)
    return Deleted.of(counts, done=True)


def cancel(service: Service, caller: Caller, run: str) -> JobAnswer:
    """Cancel the job that does the run; nothing happens when it has ended. Raises NotFoundError."""
    with service.db.write() as session:
        job_id = runs.find(session, caller.project_id, run).job_id
        job = job_rows.find(session, caller.project_id, job_id)
        return jobs.answer(queue.request_cancel(session, job))


def report(service: Service, caller: Caller, run: str) -> ReportAnswer:
    """Raises NotFoundError, and ConflictError when the run is not published, as all that follow."""
    return results.report(_published(service, caller, run))


def full_report(service: Service, caller: Caller, run: str) -> RunReport:
    """Everything that came of a run, as `results.full_report`; of its evaluations, the newest."""
    with service.db.read() as session:
        row = runs.find_published(session, caller.project_id, run)
        corpus = session.get_one(Version, row.version_id).key
        told = evaluations.listing(session, row.id, limit=_EVALUATIONS)
    documents = [evaluations.document(each.evaluation) for each in told]
    return results.full_report(service.storage, row, corpus, [each for each in documents if each is not None])


@dataclass(frozen=True, slots=True)
class ReportPage:
    """A page, and the Content-Security-Policy to send it with: it is no part of the service's site."""

    html: str
    policy: str


def report_page(service: Service, caller: Caller, run: str) -> ReportPage:
    """The full report as a page (`datapruner.reporting.page`)."""
    from datapruner.reporting.page import page, policy  # with libraries that few requests need

    html = "".join(page(full_report(service, caller, run)))
    return ReportPage(html, f"{policy()}; frame-ancestors 'none'; sandbox allow-scripts")


def masks(
    service: Service, caller: Caller, run: str, *, limit: int, after: int | None = None
) -> list[MaskAnswer]:
    """Masks of a run's samples, as `results.masks`."""
    return results.masks(service.storage, _published(service, caller, run), limit=limit, after=after)


def explain(service: Service, caller: Caller, run: str, sample: str) -> SampleAnswer:
    """Why a sample of a run was kept or pruned, as `results.explanation`."""
    with service.db.read() as session:
        row = runs.find_published(session, caller.project_id, run)
        corpus = session.get_one(Version, row.version_id).key
    return results.explanation(service.storage, row, corpus, sample, service.settings.home)


def compare(service: Service, caller: Caller, run: str, other: str) -> Comparison:
    """What two runs make of the samples that both know (`results.comparison`), and how each was evaluated."""
    both = [_published(service, caller, each) for each in (run, other)]
    found = results.comparison(service.storage, *both)
    with service.db.read() as session:
        told = [evaluations.latest(session, each.id) for each in both]
    documents = [evaluations.document(each) for each in told if each is not None]
    return found.model_copy(update={"evaluations": documents})


def against(service: Service, caller: Caller, run: str, other: str, x: str, y: str) -> Against:
    """Score `x` of a run against `y` of another, as `results.against`."""
    first, second = (_published(service, caller, each) for each in (run, other))
    return results.against(service.storage, first, second, x, y)


def _published(service: Service, caller: Caller, run: str) -> Run:
    with service.db.read() as session:
        return runs.find_published(session, caller.project_id, run)


def _answer(shown: runs.Shown, verdicts: Mapping[str, str | None]) -> RunAnswer:
    run = shown.run
    return RunAnswer.model_validate(
        {name: getattr(run, name) for name in RunAnswer.model_fields if hasattr(run, name)}
        | {"dataset": shown.dataset, "version": shown.version, "state": shown.state}
        | {"verdict": verdicts.get(run.id)}
    )
