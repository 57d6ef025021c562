"""Every error that leaves the API, as application/problem+json with the request's id."""

from __future__ import annotations

from typing import Any, ClassVar

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from datapruner.errors import BusyError, DataprunerError, NotReadyError, RepeatedKeyError
from datapruner.service.problems import MEDIA_TYPE, OF_THE_DATABASE, document, of_request, problem
from datapruner.validation import wording

_MOST_ERRORS, _MOST_TEXT = 20, 500
_HTTP = {
    400: ("malformed", "The request cannot be read"),
    404: ("not-found", "There is no such thing"),
    405: ("method-not-allowed", "This cannot be done with it"),
    406: ("not-acceptable", "There is no such representation"),
    413: ("too-large", "The request is too large"),
    415: ("unsupported-media-type", "Such content is not understood"),
    416: ("range-not-satisfiable", "The file has no such range"),
}
_UNREADABLE = "There was an error parsing the body"
_HELP = "/docs lists the paths and what each takes"
#: What the framework says, in words that help.
_SAID = {
    _UNREADABLE: (
        "the body is not UTF-8, nested too deeply, or has a number of more than 4,300 digits",
        "send a plain JSON document",
    ),
    "Not Found": ("there is nothing at this path", _HELP),
    "Method Not Allowed": ("this method is not for this path", _HELP),
}
_RETRY_AFTER = {BusyError: "2", NotReadyError: "5", RepeatedKeyError: "1"}
"""Seconds until another attempt may go well."""
_REALM = 'Bearer realm="datapruner"'

#: For `responses=` of routers: what every operation may answer beside its own.
PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": title,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status, title in (
        (400, "The request cannot be read"),
        (401, "No valid token"),
        (403, "The token lacks the scope, or this is not allowed"),
        (404, "There is no such thing"),
        (409, "It clashes with what is there"),
        (413, "The request is too large"),
        (415, "Such content is not understood"),
        (422, "The request is not valid"),
        (429, "A limit is reached"),
        (503, "Not able to answer now"),
    )
}


class HttpError(DataprunerError):
    """An error that means something only in HTTP."""

    kind: ClassVar[str]
    title: ClassVar[str]
    status: ClassVar[int]

    def headers(self) -> dict[str, str]:
        return {}


class UnauthorizedError(HttpError):
    """No token, or none that is good."""

    kind, title, status = "unauthorized", "No valid token", 401

    def __init__(self, message: str) -> None:
        super().__init__(message, remedy="send `Authorization: Bearer dpr_...`; an admin makes tokens")

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": _REALM}


class MissingScopeError(HttpError):
    """The token may not do this."""

    kind, title, status = "missing-scope", "The token lacks a scope", 403

    def __init__(self, scope: str) -> None:
        super().__init__(f"the token lacks the scope {scope}", remedy=f"use a token with the scope {scope}")
        self.scope = scope

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{self.scope}"'}


class NotMeantError(HttpError):
    """A change that a browser asks for, which none of our pages did."""

    kind, title, status = "not-meant", "This did not come from a page of ours", 403

    def __init__(self) -> None:
        super().__init__(
            "the request brings a browser's cookie but not the word of a page",
            remedy="load the page anew and try again; programs send a token instead of a cookie",
        )


class TooLargeError(HttpError):
    """The body is longer than it may be."""

    kind, title, status = "too-large", "The request is too large", 413


ANSWERED: tuple[type[Exception], ...] = (
    DataprunerError,
    RequestValidationError,
    HTTPException,
    RecursionError,
    *OF_THE_DATABASE,
)
"""What has an answer that says what is wrong; anything else is a fault of ours, for the logs."""


def install(app: FastAPI) -> None:
    """Answer with problems whatever an endpoint, the router or the validation raises."""
    for kind in ANSWERED:
        app.add_exception_handler(kind, _handle)


def response(about: dict[str, Any], request_id: str, headers: dict[str, str] | None = None) -> Response:
    """A problem document as an answer."""
    body = orjson.dumps(about | {"request_id": request_id})
    return Response(body, about["status"], headers=headers, media_type=MEDIA_TYPE)


def answer(error: Exception, request_id: str) -> Response:
    """Any error as an answer."""
    about, headers = told(error)
    return response(about, request_id, headers)


async def _handle(request: Request, error: Exception) -> Response:
    return answer(error, request.state.request_id)


def told(error: Exception) -> tuple[dict[str, Any], dict[str, str]]:
    """The problem document and the headers of an error."""
    match error:
        case HttpError():
            about = document(
                error.kind, error.title, error.status, error.message, field=error.field, remedy=error.remedy
            )
            return about, error.headers()
        case RequestValidationError():
            return _invalid(error), {}
        case HTTPException():
            kind, title = _HTTP.get(error.status_code, (f"http-{error.status_code}", "The request failed"))
            detail, remedy = _SAID.get(str(error.detail), (str(error.detail), None))
            about = document(kind, title, error.status_code, detail, remedy=remedy)
            return about, dict(error.headers or {})
        case RecursionError():
            return told(HTTPException(400, _UNREADABLE))
    error = of_request(error)
    again = next((seconds for kind, seconds in _RETRY_AFTER.items() if isinstance(error, kind)), None)
    return problem(error), {} if again is None else {"Retry-After": again}


def _invalid(error: RequestValidationError) -> dict[str, Any]:
    """What is wrong with which fields, without what was sent: it may be large, or secret."""
    errors = error.errors()[:_MOST_ERRORS]
    found = [{"field": _path(each), "message": wording(each)[:_MOST_TEXT]} for each in errors]
    field = found[0]["field"] or None
    return document(
        "invalid-request",
        "The request is not valid",
        422,
        ": ".join(filter(None, found[0].values())),
        field=field,
        remedy=_remedy(errors[0]),
        errors=found,
    )


def _path(error: dict[str, Any]) -> str:
    """`("body", "run", "keep")` as `run.keep`: where the field stands in its part of the request."""
    parts = () if error["type"] == "json_invalid" else error["loc"][1:]  # there, it is a place in the text
    parts = parts or error.get("ctx", {}).get("at", ())
    path = ".".join(str(part)[:100] for part in parts)
    return path.encode(errors="replace").decode()  # JSON may name fields by what is no text


def _remedy(first: dict[str, Any]) -> str:
    if "remedy" in first.get("ctx", {}):
        return str(first["ctx"]["remedy"])
    if first["type"] == "json_invalid":
        return "send valid JSON"
    if first["type"] in ("model_attributes_type", "missing") and first["loc"] == ("body",):
        return "send a JSON body with the header `Content-Type: application/json` (curl: --json)"
    if first["type"] == "unfit":
        return "leave it out"
    if first["type"] == "extra_forbidden":
        return "leave the field out; /docs lists those that there are"
    return "/docs says what each field may be"
