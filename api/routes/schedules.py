"""Schedules: curation jobs that come back, their history, and what their webhooks were told."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response, status

from api.answers import accepted
from api.dependencies import IdPage, Reader, ServiceDep, Writer, page
from datapruner.catalog import datasets
from datapruner.catalog import schedules as catalog
from datapruner.catalog.models import Dataset, Schedule
from datapruner.errors import UsageError, WorkerError
from datapruner.request.config import RunConfig
from datapruner.schemas.common import Dependent, Page
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
from datapruner.service import allowed_models, allowed_sources, schedules, webhooks
from datapruner.service.instance import Service

router = APIRouter(prefix="/schedules", tags=["schedules"])


@router.post(
    "",
    operation_id="create_schedule",
    status_code=status.HTTP_201_CREATED,
    summary="Have a job done at certain times",
)
def create_schedule(
    body: NewSchedule, service: ServiceDep, caller: Writer, response: Response
) -> NewScheduleAnswer:
    """New rows are fetched first if the schedule or its dataset has a source; then it runs on the latest
    version. `webhook_secret` signs the deliveries and is shown in this answer only."""
    config = _checked(body, service)
    with service.db.write() as session:
        dataset = datasets.find(session, caller.project_id, body.dataset, lock=True)
        schedule = schedules.create(session, dataset, body, config, caller.token_id)
    response.headers["Location"] = f"/v1/schedules/{schedule.id}"
    response.headers["Cache-Control"] = "no-store"
    return NewScheduleAnswer(**_columns(schedule, dataset), webhook_secret=schedule.webhook_secret)


def _checked(body: NewSchedule, service: Service) -> RunConfig:
    """What may take long, and so is done before the transaction: the checks, and the configuration."""
    config = body.run.config({}, service.sql.run)
    allowed_models.check_models(service.settings, config.measuring)
    if body.source is not None:
        allowed_sources.check_source(service.settings, body.source)
    if body.webhook is not None:
        try:
            webhooks.check_url(str(body.webhook), service.settings)
        except WorkerError as error:  # at delivery it may pass; here it is most likely a typing error
            raise UsageError(error.message, remedy=error.remedy, field=error.field) from error
    return config


@router.get("", operation_id="list_schedules", summary="List schedules")
def list_schedules(service: ServiceDep, caller: Reader, paging: IdPage) -> Page[ScheduleAnswer]:
    """The newest first."""
    with service.db.read() as session:
        found = catalog.listing(session, caller.project_id, paging.limit + 1, paging.after)
    answers = [_answer(schedule, dataset) for schedule, dataset in found]
    return page(answers, paging.limit, lambda schedule: schedule.id)


@router.get("/{schedule}", operation_id="get_schedule", summary="Show a schedule and when it fires next")
def get_schedule(schedule: str, service: ServiceDep, caller: Reader) -> ScheduleAnswer:
    """`schedule` is a name or an id."""
    with service.db.read() as session:
        found = catalog.find(session, caller.project_id, schedule)
        return _answer(found, session.get_one(Dataset, found.dataset_id))


@router.patch("/{schedule}", operation_id="change_schedule", summary="Change, pause or resume a schedule")
def change_schedule(
    schedule: str, body: ChangedSchedule, service: ServiceDep, caller: Writer
) -> ScheduleAnswer:
    """What was missed during a pause is not made up for."""
    with service.db.write() as session:
        found = catalog.find(session, caller.project_id, schedule, lock=True)
        schedules.change(found, body)
        return _answer(found, session.get_one(Dataset, found.dataset_id))


@router.delete("/{schedule}", operation_id="delete_schedule", summary="Delete a schedule with its history")
def delete_schedule(schedule: str, service: ServiceDep, caller: Writer) -> Deleted:
    """Its jobs go on and stay, with what came of them; their ends are no longer told."""
    with service.db.write() as session:
        found = catalog.find(session, caller.project_id, schedule, lock=True)
        dependents = catalog.dependents(session, found.id)
        catalog.delete(session, found.id)
    return Deleted(
        deleted=True, dependents=[Dependent(kind=kind, count=count) for kind, count in dependents.items()]
    )


@router.post(
    "/{schedule}/fire",
    operation_id="fire_schedule",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobAnswer,
    summary="Fire a schedule now",
)
def fire_schedule(schedule: str, service: ServiceDep, caller: Writer) -> Response:
    """Whether or not it is paused or still works. Its fire times stay as they are."""
    with service.db.write() as session:
        found = catalog.find(session, caller.project_id, schedule, lock=True)
        job = schedules.fire_now(session, service.settings, found, caller.token_id, caller.request_id)
    return accepted(job)


@router.get("/{schedule}/fires", operation_id="list_fires", summary="List when a schedule fired")
def list_fires(schedule: str, service: ServiceDep, caller: Reader, paging: IdPage) -> Page[FireAnswer]:
    """With the states of the jobs, the newest first."""
    with service.db.read() as session:
        found = catalog.find(session, caller.project_id, schedule)
        fires = catalog.fires(session, found.id, paging.limit + 1, paging.after)
    answers = [FireAnswer.model_validate({**vars(fire), "state": state}) for fire, state in fires]
    return page(answers, paging.limit, lambda fire: fire.id)


@router.get(
    "/{schedule}/deliveries",
    operation_id="list_deliveries",
    summary="List what a webhook was told",
)
def list_deliveries(
    schedule: str, service: ServiceDep, caller: Reader, paging: IdPage
) -> Page[DeliveryAnswer]:
    """Every attempt, the newest first."""
    with service.db.read() as session:
        found = catalog.find(session, caller.project_id, schedule)
        deliveries = catalog.deliveries(session, found.id, paging.limit + 1, paging.after)
    answers = [DeliveryAnswer.model_validate(delivery) for delivery in deliveries]
    return page(answers, paging.limit, lambda delivery: delivery.id)


def _answer(schedule: Schedule, dataset: Dataset) -> ScheduleAnswer:
    return ScheduleAnswer(**_columns(schedule, dataset))


def _columns(schedule: Schedule, dataset: Dataset) -> dict[str, Any]:
    columns = {
        name: getattr(schedule, name)
        for name in ScheduleAnswer.model_fields
        if name not in ("dataset", "next_fires")
    }
    return columns | {"dataset": dataset.name, "next_fires": schedules.next_fires(schedule)}
