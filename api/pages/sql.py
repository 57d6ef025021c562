"""SQL over what the project has, written and looked at in a browser; statements go to `/v1/sql`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from api.dependencies import ServiceDep
from api.pages.rendering import page
from api.pages.visits import PageRoute, SqlVisitor
from datapruner.service import sql

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/sql", operation_id="page_sql")
def page_sql(request: Request, service: ServiceDep, visitor: SqlVisitor) -> HTMLResponse:
    """The editor, with what a statement may use of this machine."""
    return page(request, "sql.html", visitor, limits=sql.limits(service.settings))
