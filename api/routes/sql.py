"""SQL over the caller's corpora, scores, masks and runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from api.dependencies import ServiceDep, SqlUser
from api.negotiation import negotiated
from api.paging import IdPage, page
from datapruner.schemas.common import Name, Page
from datapruner.schemas.datasets import Deleted
from datapruner.schemas.sql import (
    MEDIA_TYPES,
    NewSavedQuery,
    SavedQueryAnswer,
    SqlAnswer,
    SqlRequest,
    SqlSchema,
)
from datapruner.service import saved_queries, sql

T = TypeVar("T")
router = APIRouter(prefix="/sql", tags=["sql"])

_FORMATS = {media_type: name for name, media_type in MEDIA_TYPES.items()}
_HEADERS = {
    "Datapruner-Truncated": {
        "description": "true when there were more rows than the limits allow, else false",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
    "Datapruner-Seconds": {
        "description": "time that the statement took to run",
        "schema": {"type": "string"},
    },
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.post(
    "",
    operation_id="run_sql",
    response_model=SqlAnswer,
    responses={
        200: {
            "description": "The rows, as `format` or else `Accept` says",
            "headers": _HEADERS,
            "content": {media_type: _BINARY for media_type, name in _FORMATS.items() if name != "json"},
        },
        406: {"description": "No such representation"},
    },
)
async def run_sql(request: Request, service: ServiceDep, caller: SqlUser, body: SqlRequest) -> Response:
    """Run one SELECT, in DuckDB's SQL.

    Each dataset is a schema: `samples`, `turns`, `rejects`, `originals` of its latest version;
    `sample_scores`, `token_scores`, `masks` of its latest run. `{dataset}_v2` is version 2, the id of a run a
    schema of that run. `datasets` and `runs` list what there is; `GET /v1/sql/schema` explains every column.

    JSON: numbers have all their digits, which JavaScript rounds beyond 2^53: cast those to VARCHAR for it.
    "NaN", "Infinity" and "-Infinity" are text, dates and times ISO 8601, blobs base64, maps arrays of key and
    value. JSON lines: an object for each row. CSV: UTF-8, in a field what JSON has in its place, text in
    double quotes, null an empty field, lists and structs as JSON.

    A statement gives at most 4,096 columns; those of the same name get a number. It ends with the connection.
    """
    kind = negotiated(request, _FORMATS, "rows come") if body.format is None else body.format
    statement = sql.Statement(service, caller, body, kind)
    document = await while_wanted(request, statement.run, statement.end)
    headers = {
        "Datapruner-Truncated": str(document.truncated).lower(),
        "Datapruner-Seconds": f"{document.seconds:.6f}",
        "Vary": "Accept",
    }
    return Response(document.content, headers=headers, media_type=MEDIA_TYPES[kind])


@router.get("/schema", operation_id="describe_sql")
def describe_sql(
    service: ServiceDep,
    caller: SqlUser,
    schema: Annotated[
        str | None, Query(max_length=200, description="only this one; default: the first 50 datasets")
    ] = None,
) -> SqlSchema:
    """The tables that SQL can read, and what each column means."""
    return sql.describe(service, caller, schema)


@router.get("/saved", operation_id="list_saved_queries", summary="List the saved queries")
def list_saved_queries(service: ServiceDep, caller: SqlUser, paging: IdPage) -> Page[SavedQueryAnswer]:
    """Of the project, the newest first."""
    found = saved_queries.listing(service, caller, limit=paging.limit + 1, before=paging.after)
    return page(found, paging.limit, lambda query: query.id)


@router.put("/saved/{query}", operation_id="save_query", summary="Save a query by name")
def save_query(query: Name, body: NewSavedQuery, service: ServiceDep, caller: SqlUser) -> SavedQueryAnswer:
    """In place of what had the name before. The statement is not run."""
    return saved_queries.save(service, caller, query, body)


@router.delete("/saved/{query}", operation_id="delete_saved_query", summary="Delete a saved query")
def delete_saved_query(query: Name, service: ServiceDep, caller: SqlUser) -> Deleted:
    """For all of the project."""
    return saved_queries.delete(service, caller, query)


async def while_wanted(request: Request, run: Callable[[], T | None], end: Callable[[], None]) -> T:
    """What `run` gives in a thread; `end` is called when the client goes away or the service stops, and lets
    it return None.

    The request's body has been read. Raises ClientDisconnect.
    """
    watching = asyncio.create_task(end_when_gone(request, end))
    try:
        found = await run_in_threadpool(run)
    finally:
        watching.cancel()
        end()  # this may be the end of the service, while the thread goes on
    if found is None:
        raise ClientDisconnect
    return found


async def end_when_gone(request: Request, end: Callable[[], None]) -> None:
    """Call `end` when the client of a request whose body has been read goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    end()
