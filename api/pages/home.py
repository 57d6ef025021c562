"""The first page: what there is, what is going on, and what comes next."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from api.dependencies import ServiceDep
from api.pages.rendering import page
from api.pages.visits import PageRoute, Visitor
from datapruner.service import datasets, jobs, runs, schedules

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_SHOWN = 10
_FIRES = 3


@router.get("/", operation_id="page_home")
def page_home(request: Request, service: ServiceDep, visitor: Visitor) -> HTMLResponse:
    """Datasets, runs, jobs and schedules of the visitor's project, the newest first."""
    caller = visitor.caller
    plans = schedules.listing(service, caller, limit=_SHOWN)
    return page(
        request,
        "home.html",
        visitor,
        datasets=datasets.listing(service, caller, limit=_SHOWN),
        runs=runs.listing(service, caller, limit=_SHOWN),
        jobs=jobs.listing(service, caller, limit=_SHOWN),
        schedules=[(plan, schedules.history(service, caller, plan.id, limit=_FIRES)) for plan in plans],
    )
