"""A run: what became of the rows, and its samples to look into."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from api.dependencies import ServiceDep
from api.pages.rendering import page, part
from api.pages.visits import PageRoute, Visitor
from datapruner.schemas.planes import FoundRows, Look, Outline, PlaneColumns, PlaneView
from datapruner.schemas.spreads import SpreadAsked, SpreadColumns
from datapruner.schemas.trying import Tried, Try
from datapruner.service import exports, jobs, run_pages, runs, trying

router = APIRouter(route_class=PageRoute, include_in_schema=False)
data = APIRouter(include_in_schema=False)
"""What scripts ask for; its errors are documents."""


_OTHERS, _EXPORTS = 20, 10
"""Runs that one is offered to be compared with, and exports that are listed."""


@router.get("/runs/{run}", operation_id="page_run")
def page_run(request: Request, service: ServiceDep, visitor: Visitor, run: str) -> HTMLResponse:
    """A run: at once what the catalog knows of it; what takes longer is fetched by the page."""
    found = runs.show(service, visitor.caller, run)
    newest = runs.listing(service, visitor.caller, limit=_OTHERS)
    job = None if found.published_at else jobs.show(service, visitor.caller, found.job_id)
    return page(
        request,
        "run.html",
        visitor,
        run=found,
        job=job,
        exports=exports.listing(service, visitor.caller, limit=_EXPORTS, run=run),
        others=[each for each in newest if each.published_at and each.id != run],
        triable=trying.offered(found),
        again=trying.settings_of(found),
        token_keep=trying.token_keep(found),
    )


@router.get("/runs/{run}/details", operation_id="page_run_details")
def page_run_details(service: ServiceDep, visitor: Visitor, run: str) -> HTMLResponse:
    """The report, as a part of the page."""
    return part(run_pages.body(service, visitor.caller, run))


@data.get("/runs/{run}/columns.json", operation_id="page_run_columns")
def page_run_columns(service: ServiceDep, visitor: Visitor, run: str) -> PlaneColumns:
    """What can be drawn."""
    return run_pages.columns(service, visitor.caller, run)


@data.get("/runs/{run}/plane.json", operation_id="page_run_plane")
def page_run_plane(
    service: ServiceDep, visitor: Visitor, run: str, asked: Annotated[Look, Query()]
) -> PlaneView:
    """The samples in a part of the plane."""
    return run_pages.plane(service, visitor.caller, run, asked)


@data.get("/runs/{run}/rows.json", operation_id="page_run_rows")
def page_run_rows(
    service: ServiceDep, visitor: Visitor, run: str, asked: Annotated[Outline, Query()]
) -> FoundRows:
    """The rows in it."""
    return run_pages.rows(service, visitor.caller, run, asked)


@data.get("/runs/{run}/spread.json", operation_id="page_run_spread_columns")
def page_run_spread_columns(service: ServiceDep, visitor: Visitor, run: str) -> SpreadColumns:
    """The columns that rows can be seen over."""
    return run_pages.spread_columns(service, visitor.caller, run)


@data.get("/runs/{run}/spread", operation_id="page_run_spread")
def page_run_spread(
    service: ServiceDep, visitor: Visitor, run: str, asked: Annotated[SpreadAsked, Query()]
) -> HTMLResponse:
    """How they are spread over one, as a part of the page."""
    return part(run_pages.spread_over(service, visitor.caller, run, asked.column))


@data.get("/runs/{run}/tried.json", operation_id="page_run_tried")
def page_run_tried(service: ServiceDep, visitor: Visitor, run: str, asked: Annotated[Try, Query()]) -> Tried:
    """What the run would keep at another ratio."""
    return trying.tried(service, visitor.caller, run, asked)
