"""SQL over the caller's corpora, scores, masks and runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.dependencies import ServiceDep, SqlUser
from api.negotiation import preferred
from datapruner.schemas.sql import SqlAnswer, SqlFormat, SqlRequest, SqlSchema
from datapruner.service import sql

T = TypeVar("T")
router = APIRouter(prefix="/sql", tags=["sql"])

_MEDIA_TYPES: dict[SqlFormat, str] = {
    "json": "application/json",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
    "csv": "text/csv",
}
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
            "content": {media_type: _BINARY for kind, media_type in _MEDIA_TYPES.items() if kind != "json"},
        },
        406: {"description": "No such representation"},
    },
)
async def run_sql(request: Request, service: ServiceDep, caller: SqlUser, body: SqlRequest) -> Response:
    """Run one SELECT, in DuckDB's SQL.

    Each dataset is a schema: `samples`, `turns`, `rejects`, `originals` of its latest version;
    `sample_scores`, `token_scores`, `masks` of its latest run. `{dataset}_v2` is version 2, the id of a run a
    schema of that run. `datasets` and `runs` list what there is; `GET /v1/sql/schema` explains every column.

    JSON: whole numbers from 2^53 on and decimals of more than 15 digits are text, so are "NaN", "Infinity"
    and "-Infinity"; dates and times are ISO 8601, blobs base64, maps arrays of key and value.
    CSV: UTF-8, text in double quotes, null an empty field, lists and structs as JSON.

    A statement gives at most 4,096 columns; those of the same name get a number. It ends with the connection.
    """
    kind = _format(request, body)
    statement = sql.Statement(service, caller, body, kind)
    document = await while_wanted(request, statement.run, statement.end)
    headers = {
        "Datapruner-Truncated": str(document.truncated).lower(),
        "Datapruner-Seconds": f"{document.seconds:.6f}",
        "Vary": "Accept",
    }
    return Response(document.content, headers=headers, media_type=_MEDIA_TYPES[kind])


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


async def while_wanted(request: Request, run: Callable[[], T | None], end: Callable[[], None]) -> T:
    """What `run` gives in a thread; `end` is called when the client goes away or the service stops, and lets
    it return None.

    The request's body has been read. Raises ClientDisconnect.
    """
    watching = asyncio.create_task(_end_when_gone(request, end))
    try:
        found = await run_in_threadpool(run)
    finally:
        watching.cancel()
        end()  # this may be the end of the service, while the thread goes on
    if found is None:
        raise ClientDisconnect
    return found


async def _end_when_gone(request: Request, end: Callable[[], None]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    end()


def _format(request: Request, body: SqlRequest) -> SqlFormat:
    """What the rows are to be written as. Raises HTTPException 406."""
    if body.format is not None:
        return body.format
    offers = {media_type: kind for kind, media_type in _MEDIA_TYPES.items()}
    accept = ",".join(request.headers.getlist("accept"))
    if (found := preferred(accept, list(offers))) is None:
        raise HTTPException(status.HTTP_406_NOT_ACCEPTABLE, f"rows come as {' or '.join(offers)}")
    return offers[found]
