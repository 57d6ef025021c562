"""A schedule: when it fires next, and what came of every time that it did."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from api.dependencies import ServiceDep
from api.pages.rendering import page
from api.pages.visits import PageRoute, Visitor
from datapruner.service import schedules

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_FIRES = 25


@router.get("/schedules/{schedule}", operation_id="page_schedule")
def page_schedule(
    request: Request,
    service: ServiceDep,
    visitor: Visitor,
    schedule: str,
    before: Annotated[str | None, Query(max_length=64)] = None,
) -> HTMLResponse:
    """A schedule with a page of its history, of the fires older than the id `before`."""
    caller = visitor.caller
    found = schedules.show(service, caller, schedule)
    history = schedules.history(service, caller, found.id, limit=_FIRES + 1, before=before)
    return page(
        request,
        "schedule.html",
        visitor,
        schedule=found,
        history=history[:_FIRES],
        older=history[_FIRES - 1][0].id if len(history) > _FIRES else None,
        newest=before is None,
    )
