"""Schedules: made, shown, changed, fired by hand, deleted; their history, and what their webhooks were told.

When they fire is in `service.fire_times`, what a fire does in `service.firing`.
"""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from datapruner.catalog import datasets, schedules
from datapruner.catalog.models import Dataset, Schedule, new_id, utcnow
from datapruner.errors import ConflictError, UsageError, WorkerError
from datapruner.outputs.trainers.registry import TRAINERS
from datapruner.outputs.trainers.trainer import AsFolder
from datapruner.request.config import RunConfig
from datapruner.request.evaluating import EvaluationSettings
from datapruner.runs import recipes
from datapruner.schemas.datasets import Deleted
from datapruner.schemas.jobs import JobAnswer
from datapruner.schemas.schedules import (
    ChangedSchedule,
    DeliveryAnswer,
    FireAnswer,
    NewSchedule,
    NewScheduleAnswer,
    ScheduleAnswer,
)
from datapruner.service import comparison_sets, firing, jobs, submission, webhooks
from datapruner.service.allowed_models import check_models
from datapruner.service.allowed_sources import check_source
from datapruner.service.fire_times import fire_times, known_zone, next_fire
from datapruner.service.instance import Service
from datapruner.service.tokens import Caller

_MAX_NAME = 63


def create(service: Service, caller: Caller, wanted: NewSchedule) -> NewScheduleAnswer:
    """A schedule, with the secret that signs its deliveries.

    Raises NotFoundError for the dataset, DeniedError and InputError for its source or models, and as `add`.
    """
    config, evaluation = _checked(service, wanted)
    with service.db.write() as session:
        dataset = datasets.find(session, caller.project_id, wanted.dataset, lock=True)
        schedule = add(session, dataset, wanted, config, caller.token_id, evaluation)
    return NewScheduleAnswer(**_columns(schedule, dataset), webhook_secret=schedule.webhook_secret)


def _checked(service: Service, wanted: NewSchedule) -> tuple[RunConfig, EvaluationSettings | None]:
    """What may take long, and so is done before the transaction: the checks, the configuration of the run,
    and what it is evaluated by."""
    try:
        config = recipes.of_request(wanted.run, {}, service.sql.run)
        check_models(service.settings, config.measuring)
        evaluation = submission.evaluation_of(service, wanted.run, config)
    except UsageError as error:
        error.field = error.field and f"run.{error.field}"
        raise
    if wanted.source is not None:
        check_source(service.settings, wanted.source)
    if wanted.webhook is not None:
        try:
            webhooks.check_url(str(wanted.webhook), service.settings)
        except WorkerError as error:  # at delivery it may pass; here it is most likely a typing error
            raise UsageError(error.message, remedy=error.remedy, field=error.field) from error
    return config, evaluation


def listing(
    service: Service, caller: Caller, *, limit: int, before: str | None = None
) -> list[ScheduleAnswer]:
    """The newest `limit` schedules, those older than the id `before` if it is given."""
    with service.db.read() as session:
        found = schedules.listing(session, caller.project_id, limit, before)
    return [_answer(schedule, dataset) for schedule, dataset in found]


def show(service: Service, caller: Caller, schedule: str) -> ScheduleAnswer:
    """A schedule, by name or id. Raises NotFoundError, as all that follow."""
    with service.db.read() as session:
        found = schedules.find(session, caller.project_id, schedule)
        return _answer(found, session.get_one(Dataset, found.dataset_id))


def change(service: Service, caller: Caller, schedule: str, wanted: ChangedSchedule) -> ScheduleAnswer:
    """Change, pause or resume a schedule, as `apply_change`."""
    with service.db.write() as session:
        found = schedules.find(session, caller.project_id, schedule, lock=True)
        apply_change(found, wanted)
        return _answer(found, session.get_one(Dataset, found.dataset_id))


def delete(service: Service, caller: Caller, schedule: str) -> Deleted:
    """Delete a schedule with its history."""
    with service.db.write() as session:
        found = schedules.find(session, caller.project_id, schedule, lock=True)
        counts = schedules.dependents(session, found.id)
        schedules.delete(session, found.id)
    return Deleted.of(counts, done=True)


def fire(service: Service, caller: Caller, schedule: str) -> JobAnswer:
    """Fire a schedule now, as `firing.fire_now`."""
    with service.db.write() as session:
        found = schedules.find(session, caller.project_id, schedule, lock=True)
        job = firing.fire_now(session, service.settings, found, caller.token_id, caller.request_id)
    return jobs.answer(job)


def fires(
    service: Service, caller: Caller, schedule: str, *, limit: int, before: str | None = None
) -> list[FireAnswer]:
    """The newest `limit` fires with the states of their jobs, those older than the id `before`."""
    return [fire for fire, _ in history(service, caller, schedule, limit=limit, before=before)]


def history(
    service: Service, caller: Caller, schedule: str, *, limit: int, before: str | None = None
) -> list[tuple[FireAnswer, JobAnswer | None]]:
    """The same, each with its job."""
    with service.db.read() as session:
        found = schedules.find(session, caller.project_id, schedule)
        rows = schedules.fires(session, found.id, limit, before)
        return [
            (
                FireAnswer.model_validate({**vars(fire), "state": None if job is None else job.state}),
                None if job is None else jobs.answer(job),
            )
            for fire, job in rows
        ]


def deliveries(
    service: Service, caller: Caller, schedule: str, *, limit: int, before: str | None = None
) -> list[DeliveryAnswer]:
    """The newest `limit` attempts to deliver its webhook, those older than the id `before`."""
    with service.db.read() as session:
        found = schedules.find(session, caller.project_id, schedule)
        rows = schedules.deliveries(session, found.id, limit, before)
    return [DeliveryAnswer.model_validate(row) for row in rows]


def add(
    session: Session,
    dataset: Dataset,
    wanted: NewSchedule,
    config: RunConfig,
    token_id: str | None,
    evaluation: EvaluationSettings | None = None,
) -> Schedule:
    """A schedule on `dataset`. Raises UsageError naming the field at fault, ConflictError for a taken name.

    `config` and `evaluation` are of `wanted.run`, without the mapping. That, source and webhook are to be
    checked before, outside of the transaction: it may take long.
    """
    now = utcnow()
    config = config.model_copy(update={"mapping": dict(dataset.mapping or {})})
    comparison_sets.pinned(session, dataset.project_id, config)  # for the errors; each fire pins anew
    if evaluation is not None:
        comparison_sets.pinned_held_out(session, dataset.project_id, evaluation)  # likewise
    schedule = Schedule(
        id=new_id("sch"),
        project_id=dataset.project_id,
        dataset_id=dataset.id,
        token_id=token_id,
        name=wanted.name or _free_name(session, dataset),
        cron=wanted.cron,
        timezone=wanted.timezone,
        run=config.model_dump(mode="json"),
        export_format=_export(wanted, config),
        evaluation=None if evaluation is None else evaluation.model_dump(mode="json"),
        source=None if wanted.source is None else wanted.source.model_dump(mode="json"),
        overlap=wanted.overlap,
        webhook_url=None if wanted.webhook is None else str(wanted.webhook),
        webhook_secret=None if wanted.webhook is None else webhooks.new_secret(),
        next_fire_at=next_fire(wanted.cron, known_zone(wanted.timezone), now),
    )
    try:
        with session.begin_nested():
            session.add(schedule)
    except IntegrityError as error:
        raise ConflictError(
            f"{schedule.name}: a schedule of this name exists", remedy="give another name", field="name"
        ) from error
    if wanted.keep_versions is not None:
        dataset.keep_versions = wanted.keep_versions
    if wanted.keep_runs is not None:
        dataset.keep_runs = wanted.keep_runs
    return schedule


def _free_name(session: Session, dataset: Dataset) -> str:
    stem = dataset.name[: _MAX_NAME - 6]
    taken = schedules.names_like(session, dataset.project_id, stem)
    if dataset.name not in taken:
        return dataset.name
    return next(name for n in range(2, len(taken) + 3) if (name := f"{stem}_{n}") not in taken)


def apply_change(schedule: Schedule, wanted: ChangedSchedule) -> None:
    """Change what is given; raises UsageError.

    When the times change or a pause ends, the next fire time is computed anew from now.
    """
    moved = wanted.cron is not None or wanted.timezone is not None
    resumed = schedule.paused and wanted.paused is False
    schedule.cron = schedule.cron if wanted.cron is None else wanted.cron
    schedule.timezone = schedule.timezone if wanted.timezone is None else known_zone(wanted.timezone)
    schedule.overlap = wanted.overlap or schedule.overlap
    schedule.paused = schedule.paused if wanted.paused is None else wanted.paused
    if moved or resumed:
        schedule.next_fire_at = next_fire(schedule.cron, schedule.timezone, utcnow())
    if schedule.paused:
        schedule.next_fire_at = None


def _export(wanted: NewSchedule, config: RunConfig) -> str | None:
    """What to export after a run; by default nothing of one that scores only. Raises UsageError."""
    if config.has_subset:
        _check_trainer(wanted.export, config)
        return wanted.export
    if "export" in wanted.model_fields_set and wanted.export is not None:
        raise UsageError(
            "a run that only scores has no subset to export",
            remedy="say how much to keep, or leave the export out",
            field="export",
        )
    return None


def _check_trainer(export: str | None, config: RunConfig) -> None:
    """Raise UsageError for what no run of a schedule could be exported as."""
    trainer = TRAINERS.get(export or "")
    if trainer is not None and config.rewrite is not None:
        raise UsageError(
            "a run that rewrites reasoning has token ids of the texts before, and no rows for trainers",
            remedy="export plain-parquet or plain-jsonl, whose `messages` trainers tokenize",
            field="export",
        )
    if isinstance(trainer, AsFolder) and trainer.packed:
        raise UsageError(
            f"rows for {trainer.name} are packed to a length, which a schedule has not",
            remedy="choose another format, and export its runs for this one by themselves",
            field="export",
        )


def next_fires(schedule: Schedule, count: int = 5) -> list[datetime]:
    """The next fire times, in UTC without a zone; none while it is paused."""
    if schedule.paused:
        return []
    return list(islice(fire_times(schedule.cron, schedule.timezone, utcnow()), count))


def _answer(schedule: Schedule, dataset: Dataset) -> ScheduleAnswer:
    return ScheduleAnswer(**_columns(schedule, dataset))


def _columns(schedule: Schedule, dataset: Dataset) -> dict[str, Any]:
    columns = {
        name: getattr(schedule, name)
        for name in ScheduleAnswer.model_fields
        if name not in ("dataset", "next_fires")
    }
    return columns | {"dataset": dataset.name, "next_fires": next_fires(schedule)}
