"""Two runs side by side: what both keep, how their scores agree, and what their evaluations said."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from api.dependencies import ServiceDep
from api.pages.rendering import page
from api.pages.visits import PageRoute, Visitor
from datapruner.schemas.against import Against, AgainstAsked
from datapruner.service import runs

router = APIRouter(route_class=PageRoute, include_in_schema=False)
data = APIRouter(include_in_schema=False)
"""What scripts ask for; its errors are documents."""


@router.get("/runs/{run}/compare", operation_id="page_compare_with")
def page_compare_with(run: str, other: Annotated[str, Query(pattern=r"^run_[0-9a-f]{22}$")]) -> Response:
    """What a form asks for, at its address."""
    return RedirectResponse(f"/runs/{run}/compare/{other}", 303)


@router.get("/runs/{run}/compare/{other}", operation_id="page_compare")
def page_compare(
    request: Request, service: ServiceDep, visitor: Visitor, run: str, other: str
) -> HTMLResponse:
    """Two runs: at once what the catalog knows of them; what takes longer is fetched by the page."""
    both = [runs.show(service, visitor.caller, each) for each in (run, other)]
    return page(request, "compare.html", visitor, first=both[0], second=both[1])


@router.get("/runs/{run}/compare/{other}/details", operation_id="page_compare_details")
def page_compare_details(
    request: Request, service: ServiceDep, visitor: Visitor, run: str, other: str
) -> HTMLResponse:
    """What they make of the samples that both know, as a part of the page."""
    found = runs.compare(service, visitor.caller, run, other)
    shared = [each.column for each in found.correlations]
    across = dict.fromkeys([*(each.first for each in found.own_scores), *shared])
    up = dict.fromkeys([*(each.second for each in found.own_scores), *shared])
    return page(request, "compare_details.html", visitor, found=found, across=across, up=up)


@data.get("/runs/{run}/compare/{other}/scores.json", operation_id="page_compare_scores")
def page_compare_scores(
    service: ServiceDep, visitor: Visitor, run: str, other: str, asked: Annotated[AgainstAsked, Query()]
) -> Against:
    """A score of the one against a score of the other."""
    return runs.against(service, visitor.caller, run, other, asked.x, asked.y)
