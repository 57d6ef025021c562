"""Two runs side by side: what both keep, how their scores agree, and what their evaluations said."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from api.dependencies import ServiceDep
from api.pages.rendering import page
from api.pages.visits import PageRoute, Visitor
from datapruner.service import runs

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/runs/{run}/compare", operation_id="page_compare_with")
def page_compare_with(run: str, other: Annotated[str, Query(pattern=r"^run_[0-9a-f]{22}$")]) -> Response:
    """What a form asks for, at its address."""
    return RedirectResponse(f"/runs/{run}/compare/{other}", 303)


@router.get("/runs/{run}/compare/{other}", operation_id="page_compare")
def page_compare(
    request: Request, service: ServiceDep, visitor: Visitor, run: str, other: str
) -> HTMLResponse:
    """What two runs make of the samples that both know."""
    both = [runs.show(service, visitor.caller, each) for each in (run, other)]
    found = runs.compare(service, visitor.caller, run, other)
    return page(request, "compare.html", visitor, first=both[0], second=both[1], found=found)
