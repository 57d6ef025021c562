"""Schedules: curation jobs that come back, their history, and what their webhooks were told."""

from __future__ import annotations

from fastapi import APIRouter, Response, status

from api.dependencies import Reader, ServiceDep, Writer
from api.job_answers import accepted
from api.paging import IdPage, page
from datapruner.schemas.common import Page
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
from datapruner.service import schedules

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
    schedule = schedules.create(service, caller, body)
    response.headers["Location"] = f"/v1/schedules/{schedule.id}"
    response.headers["Cache-Control"] = "no-store"
    return schedule


@router.get("", operation_id="list_schedules", summary="List schedules")
def list_schedules(service: ServiceDep, caller: Reader, paging: IdPage) -> Page[ScheduleAnswer]:
    """The newest first."""
    found = schedules.listing(service, caller, limit=paging.limit + 1, before=paging.after)
    return page(found, paging.limit, lambda schedule: schedule.id)


@router.get("/{schedule}", operation_id="get_schedule", summary="Show a schedule and when it fires next")
def get_schedule(schedule: str, service: ServiceDep, caller: Reader) -> ScheduleAnswer:
    """`schedule` is a name or an id."""
    return schedules.show(service, caller, schedule)


@router.patch("/{schedule}", operation_id="change_schedule", summary="Change, pause or resume a schedule")
def change_schedule(
    schedule: str, body: ChangedSchedule, service: ServiceDep, caller: Writer
) -> ScheduleAnswer:
    """What was missed during a pause is not made up for."""
    return schedules.change(service, caller, schedule, body)


@router.delete("/{schedule}", operation_id="delete_schedule", summary="Delete a schedule with its history")
def delete_schedule(schedule: str, service: ServiceDep, caller: Writer) -> Deleted:
    """Its jobs go on and stay, with what came of them; their ends are no longer told."""
    return schedules.delete(service, caller, schedule)


@router.post(
    "/{schedule}/fire",
    operation_id="fire_schedule",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobAnswer,
    summary="Fire a schedule now",
)
def fire_schedule(schedule: str, service: ServiceDep, caller: Writer) -> Response:
    """Whether or not it is paused or still works. Its fire times stay as they are."""
    return accepted(schedules.fire(service, caller, schedule))


@router.get("/{schedule}/fires", operation_id="list_fires", summary="List when a schedule fired")
def list_fires(schedule: str, service: ServiceDep, caller: Reader, paging: IdPage) -> Page[FireAnswer]:
    """With the states of the jobs, the newest first."""
    found = schedules.fires(service, caller, schedule, limit=paging.limit + 1, before=paging.after)
    return page(found, paging.limit, lambda fire: fire.id)


@router.get(
    "/{schedule}/deliveries",
    operation_id="list_deliveries",
    summary="List what a webhook was told",
)
def list_deliveries(
    schedule: str, service: ServiceDep, caller: Reader, paging: IdPage
) -> Page[DeliveryAnswer]:
    """Every attempt, the newest first."""
    found = schedules.deliveries(service, caller, schedule, limit=paging.limit + 1, before=paging.after)
    return page(found, paging.limit, lambda delivery: delivery.id)
