"""Errors as problem documents (RFC 9457): one mapping for what the API answers and what a job keeps.

`type` is `/problems/<kind>`; the kinds never change their meaning, so a client may decide by them.

Notable choice: no message tells where files lie on the service's machine, whoever wrote it: paths are left
out here, where every error passes. One that is about a field of the request quotes the client, and stays.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from datapruner import errors
from datapruner.system import space

#: What the metadata database raises when it does not answer, and for a value that it cannot hold: a character
#: with code 0, an integer of more than 64 bits.
_AWAY: tuple[type[Exception], ...] = (OperationalError, NoConnectionError)
_UNFIT: tuple[type[Exception], ...] = (DataError, OverflowError)
OF_THE_DATABASE = (*_AWAY, *_UNFIT)
MEDIA_TYPE = "application/problem+json"
_INTERNAL = ("internal", "The service failed", 500)
_KINDS: dict[type[Exception], tuple[str, str, int]] = {
    errors.UsageError: ("invalid-request", "The request is not valid", 422),
    errors.NotFoundError: ("not-found", "There is no such thing", 404),
    errors.RepeatedKeyError: ("request-in-progress", "The first request still runs", 409),
    errors.ReusedKeyError: ("idempotency-key-reused", "The key belongs to another request", 422),
    errors.ConflictError: ("conflict", "It clashes with what is there", 409),
    errors.DeniedError: ("forbidden", "This is not allowed", 403),
    errors.QuotaError: ("quota-exceeded", "A limit is reached", 429),
    errors.BusyError: ("busy", "Too many at the same time", 429),
    errors.InputError: ("invalid-input", "The data cannot be used", 422),
    errors.ModelError: ("model-unavailable", "The proxy model cannot be used", 422),
    errors.NothingSurvivedError: ("nothing-survived", "No sample is left", 422),
    errors.StorageError: ("storage-unavailable", "Files cannot be stored or fetched", 503),
    errors.NotReadyError: ("not-ready", "The service is not ready", 503),
    errors.WorkerError: ("worker-failed", "Measuring failed", 500),
    errors.ServiceError: ("service-failed", "Another service failed", 502),
    errors.DataprunerError: _INTERNAL,
}


def of_request(error: Exception) -> Exception:
    """What an error while a request is answered means to whoever sent it: `OF_THE_DATABASE` in our words."""
    if isinstance(error, _AWAY):
        return errors.NotReadyError("the database does not answer", remedy="try again in a while")
    if isinstance(error, _UNFIT):
        return errors.UsageError(
            "a value that cannot be stored", remedy="leave out control characters and huge numbers"
        )
    return error


def problem(error: Exception) -> dict[str, Any]:
    """`error` as a problem document with the keys of `schemas.common.Problem`, without a request id.

    Only errors of our own tree tell their message, and want of space is one wherever it was met; what else
    may have gone wrong is for the logs.
    """
    error = space.told(error)
    kind, title, status = next((_KINDS[each] for each in type(error).__mro__ if each in _KINDS), _INTERNAL)
    if not isinstance(error, errors.DataprunerError):
        return document("internal", title, status, "an unexpected error; the logs have it")
    message, remedy = error.message, error.remedy
    if error.field is None:
        message, remedy = errors.without_paths(message), remedy and errors.without_paths(remedy)
    return document(kind, title, status, message, field=error.field, remedy=remedy)


def document(
    kind: str,
    title: str,
    status: int,
    detail: str,
    *,
    field: str | None = None,
    remedy: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A problem document; `more` are members beyond the usual ones."""
    return {
        "type": f"/problems/{kind}",
        "title": title,
        "status": status,
        "detail": detail,
        "field": field,
        "remedy": remedy,
        **more,
    }
