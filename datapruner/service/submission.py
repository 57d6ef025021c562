"""Submitting work: what a caller asks for is checked, stored and pinned, and becomes a job, or an error.

Notable choices:
- what may take long (checks, a recipe's filter, storing what came) is done before the transaction. What is
  found out by then is the worker's to check again;
- a job is in the queue when its dataset, run and export are in the catalog, and the other way round: they are
  one transaction;
- versions are pinned here, the data's and those of target and evaluation sets, so that a job that is taken up
  again reads the same rows. Only what a job ingests itself has no version yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from datapruner.catalog import datasets, evaluations, exports, runs
from datapruner.catalog.models import Dataset, Job, Upload, Version, new_id
from datapruner.errors import ConflictError, UsageError
from datapruner.input.shapes import RowParser
from datapruner.outputs.trainers import writing
from datapruner.outputs.trainers.registry import TRAINERS
from datapruner.request.config import RunConfig
from datapruner.request.evaluating import EvaluationSettings
from datapruner.request.settings import check_prunes
from datapruner.rows.formats import ExportFormat
from datapruner.runs import recipes
from datapruner.schemas.datasets import (
    HubSource,
    NewDataset,
    NewVersion,
    PathSource,
    RereadSource,
    UploadSource,
    UrlSource,
)
from datapruner.schemas.evaluations import NewEvaluation
from datapruner.schemas.exports import NewExport
from datapruner.schemas.jobs import JobAnswer
from datapruner.schemas.runs import NewRun, RunRequest
from datapruner.service import comparison_sets, jobs, queue, uploads
from datapruner.service import evaluations as evaluating
from datapruner.service.allowed_models import check_models
from datapruner.service.allowed_sources import check_source
from datapruner.service.instance import Service
from datapruner.service.tokens import Caller
from datapruner.service.uploads import Incoming

_SOURCE: TypeAdapter[HubSource | PathSource | UrlSource] = TypeAdapter(RereadSource)


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job, and the id of the dataset, run, export or evaluation that it is to make."""

    job: JobAnswer
    made: str


def dataset(service: Service, caller: Caller, wanted: NewDataset, file: Incoming | None = None) -> Submitted:
    """Make a dataset of a file, of inline rows, or of a source that the service reads.

    Raises UsageError for a mapping that names no role and unless just one of the three is given,
    ConflictError for a taken name, QuotaError, StorageError, and as `check_source`.
    """
    if (wanted.rows, wanted.source, file).count(None) != 2:
        raise UsageError("give either rows or a source", remedy="or send a file as a form", field="rows")
    if wanted.rows is not None:
        file = uploads.inline(wanted.rows)
    source = None if wanted.source is None else _readable(service, wanted.source)
    RowParser(wanted.mapping)  # raises UsageError for a role that there is not
    with service.db.read() as session:
        datasets.check_free(session, caller.project_id, wanted.name)
    with uploads.transaction(service.db, service.storage, caller.project_id, file) as (session, upload):
        made = datasets.create(
            session,
            caller.project_id,
            wanted.name,
            source=source,
            mapping=wanted.mapping,
            keep_versions=wanted.keep_versions,
            keep_runs=wanted.keep_runs,
        )
        payload = {"ingest": _ingest(made, upload, source, "create")}
        job = _submit(session, service, caller, "ingest", payload)
    return Submitted(jobs.answer(job), made.id)


def version(
    service: Service, caller: Caller, name: str, wanted: NewVersion, file: Incoming | None = None
) -> JobAnswer:
    """Append rows to the dataset `name`: a file, inline rows, a source or, without any, its own source.

    Raises NotFoundError, UsageError when two are given or there is nothing to read, and as `dataset`.
    """
    with service.db.read() as session:
        own = datasets.find(session, caller.project_id, name).source
    if (wanted.rows, wanted.source, file).count(None) < 2:
        raise UsageError("both rows and a source are given", remedy="give one of them", field="source")
    source = None
    if wanted.rows is not None:
        file = uploads.inline(wanted.rows)
    elif file is None:
        if wanted.source is None and own is None:
            raise UsageError(
                f"dataset {name} has no source to read again", remedy="give rows, a file or a source"
            )
        source = _readable(service, wanted.source or _SOURCE.validate_python(own))
    with uploads.transaction(service.db, service.storage, caller.project_id, file) as (session, upload):
        found = datasets.find(session, caller.project_id, name, lock=True)
        mode = "append_new" if wanted.only_new else "append"
        payload = {"ingest": _ingest(found, upload, source, mode)}
        job = _submit(session, service, caller, "ingest", payload)
    return jobs.answer(job)


def run(service: Service, caller: Caller, wanted: NewRun) -> Submitted:
    """Prune or score a version of a dataset.

    Raises NotFoundError, ConflictError when the dataset has no version yet, UsageError for what is wrong with
    the request, and as `check_models` and `comparison_sets.pinned`.
    """
    config = recipes.of_request(wanted, {}, service.sql.run)
    check_models(service.settings, config.measuring)
    evaluation = evaluation_of(service, wanted, config)
    with service.db.write() as session:
        found = datasets.find(session, caller.project_id, wanted.dataset, lock=True)
        config = config.model_copy(update={"mapping": dict(found.mapping or {})})
        config = comparison_sets.pinned(session, caller.project_id, config)
        version_id = version_of(session, found, wanted.version).id
        payload = {"run": _run(found, version_id, config)}
        payload |= _evaluate(session, caller, evaluation)
        job = _submit(session, service, caller, "run", payload)
        made = runs.create(
            session,
            project_id=caller.project_id,
            dataset_id=found.id,
            version_id=version_id,
            job_id=job.id,
            config=config,
        )
    return Submitted(jobs.answer(job), made.id)


def export(service: Service, caller: Caller, wanted: NewExport) -> Submitted:
    """Write the subset of a run to a file.

    Raises NotFoundError, and ConflictError when the run is not published or did not prune, and for a trainer
    when it rewrote; UsageError as `writing.check_length`.
    """
    if wanted.format in TRAINERS:
        writing.check_length(TRAINERS[wanted.format], wanted.max_length)
    with service.db.write() as session:
        of_run = runs.find_published(session, caller.project_id, wanted.run, lock=True)
        if not RunConfig(**of_run.config).has_subset:
            raise ConflictError(
                f"run {of_run.id} scored and did not prune, so it has no subset",
                remedy="export a run that prunes",
                field="run",
            )
        if wanted.format in TRAINERS and RunConfig(**of_run.config).rewrite is not None:
            raise ConflictError(
                f"run {of_run.id} rewrote reasoning, and has token ids of the texts before",
                remedy="export plain-parquet or plain-jsonl, whose `messages` trainers tokenize",
                field="format",
            )
        job = _submit(session, service, caller, "export", {"export": {"format": wanted.format}})
        made = exports.create(
            session,
            project_id=caller.project_id,
            run_id=of_run.id,
            job_id=job.id,
            format=wanted.format,
            max_length=wanted.max_length,
            too_long=wanted.too_long if wanted.format in TRAINERS else None,
        )
    return Submitted(jobs.answer(job), made.id)


def evaluate(service: Service, caller: Caller, run: str, wanted: NewEvaluation) -> Submitted:
    """Train models on what a run kept and on controls, and read them on held-out rows.

    Raises NotFoundError, ConflictError when the run is not published or a held-out set has no rows yet, and
    as `evaluations.allowed`.
    """
    with service.db.read() as session:
        config = RunConfig(**runs.find_published(session, caller.project_id, run).config)
    given = EvaluationSettings(**{name: getattr(wanted, name) for name in EvaluationSettings.model_fields})
    settings = evaluating.allowed(service.settings, config, given)
    with service.db.write() as session:
        of_run = runs.find_published(session, caller.project_id, run, lock=True)
        payload = _evaluate(session, caller, settings)
        job = _submit(session, service, caller, "evaluate", payload)
        made = evaluations.create(
            session,
            project_id=caller.project_id,
            run_id=of_run.id,
            job_id=job.id,
            settings=EvaluationSettings(**payload["evaluate"]),
        )
    return Submitted(jobs.answer(job), made.id)


def evaluation_of(service: Service, wanted: RunRequest, config: RunConfig) -> EvaluationSettings | None:
    """The evaluation that a recipe asks for after its run. Raises as `evaluations.allowed`."""
    settings = recipes.evaluation_of(wanted)
    return None if settings is None else evaluating.allowed(service.settings, config, settings)


def prune(
    service: Service,
    caller: Caller,
    wanted: RunRequest,
    data: Incoming,
    *,
    name: str | None,
    mapping: dict[str, str],
    format: ExportFormat,  # noqa: A002
) -> Submitted:
    """Make a dataset of the data, prune it, and export the subset: one job, and what it makes is the export.

    Without a name no listing shows the dataset. Raises as `dataset` and `run`, and UsageError when nothing
    says how much to keep.
    """
    config = recipes.of_request(wanted, mapping, service.sql.run)
    check_prunes(config)
    check_models(service.settings, config.measuring)
    evaluation = evaluation_of(service, wanted, config)
    name = name or new_id("prune")
    with service.db.read() as session:
        datasets.check_free(session, caller.project_id, name)
        config = comparison_sets.pinned(session, caller.project_id, config)
    with uploads.transaction(service.db, service.storage, caller.project_id, data) as (session, upload):
        made = datasets.create(session, caller.project_id, name, mapping=mapping)
        payload = {
            "ingest": _ingest(made, upload, None, "create"),
            "run": _run(made, None, config),
            "export": {"format": format},
        }
        payload |= _evaluate(session, caller, evaluation)
        job = _submit(session, service, caller, "prune", payload)
        project = caller.project_id
        of_run = runs.create(
            session, project_id=project, dataset_id=made.id, version_id=None, config=config, job_id=job.id
        )
        subset = exports.create(session, project_id=project, run_id=of_run.id, job_id=job.id, format=format)
    return Submitted(jobs.answer(job), subset.id)


def _readable(service: Service, source: HubSource | PathSource | UrlSource) -> dict[str, Any]:
    check_source(service.settings, source)
    return source.model_dump(mode="json")


def version_of(session: Session, dataset: Dataset, number: int | None) -> Version:
    """The version of this number, or the latest. Raises NotFoundError, ConflictError while there is none."""
    if number is not None:
        return datasets.version(session, dataset, number)
    latest = datasets.latest(session, dataset.id)
    if latest is None:
        raise ConflictError(
            f"dataset {dataset.name} has no version yet",
            remedy="wait for the job that reads its rows, or add a version",
            field="dataset",
        )
    return latest


def _ingest(
    dataset: Dataset, upload: Upload | None, source: dict[str, Any] | None, mode: str
) -> dict[str, Any]:
    """What `service.intake` is to read: the upload or, without one, the source."""
    if upload is not None:
        source = UploadSource(upload_id=upload.id).model_dump()
    assert source is not None, dataset.id
    return {"dataset_id": dataset.id, "source": source, "mode": mode}


def _run(dataset: Dataset, version_id: str | None, config: RunConfig) -> dict[str, Any]:
    return {"dataset_id": dataset.id, "version_id": version_id, "config": config.model_dump(mode="json")}


def _evaluate(session: Session, caller: Caller, settings: EvaluationSettings | None) -> dict[str, Any]:
    """The step of a job that evaluates its run, with the versions of the held-out sets; none without it."""
    if settings is None:
        return {}
    pinned = comparison_sets.pinned_held_out(session, caller.project_id, settings)
    return {"evaluate": pinned.model_dump(mode="json")}


def _submit(session: Session, service: Service, caller: Caller, kind: str, payload: dict[str, Any]) -> Job:
    return queue.submit(
        session,
        project_id=caller.project_id,
        kind=kind,
        payload=payload,
        token_id=caller.token_id,
        request_id=caller.request_id,
        max_attempts=service.settings.max_attempts,
    )
