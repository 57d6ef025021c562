"""What the service says went wrong, as an exception of datapruner's own tree."""

from __future__ import annotations

import httpx
from pydantic import ValidationError

from datapruner.client._request import unexpected
from datapruner.errors import (
    BusyError,
    ConflictError,
    DataprunerError,
    DeniedError,
    InputError,
    ModelError,
    NotFoundError,
    NothingSurvivedError,
    NotReadyError,
    QuotaError,
    RepeatedKeyError,
    ReusedKeyError,
    ServiceError,
    StorageError,
    UsageError,
    WorkerError,
)
from datapruner.problem import Problem

# The kinds of `datapruner.service.problems`; a test compares the two.
_BY_KIND: dict[str, type[DataprunerError]] = {
    "invalid-request": UsageError,
    "not-found": NotFoundError,
    "request-in-progress": RepeatedKeyError,
    "idempotency-key-reused": ReusedKeyError,
    "conflict": ConflictError,
    "forbidden": DeniedError,
    "quota-exceeded": QuotaError,
    "busy": BusyError,
    "invalid-input": InputError,
    "model-unavailable": ModelError,
    "nothing-survived": NothingSurvivedError,
    "storage-unavailable": StorageError,
    "not-ready": NotReadyError,
    "worker-failed": WorkerError,
}
_BY_STATUS: dict[int, type[DataprunerError]] = {
    400: UsageError,
    401: DeniedError,
    403: DeniedError,
    404: NotFoundError,
    405: UsageError,
    409: ConflictError,
    413: QuotaError,
    415: UsageError,
    422: UsageError,
    429: QuotaError,
    507: StorageError,
}


def raised(problem: Problem) -> DataprunerError:
    """The exception that a problem stands for; `problem` is kept on it."""
    kind = problem.type.rsplit("/", 1)[-1]
    made = _BY_KIND.get(kind) or _BY_STATUS.get(problem.status, ServiceError)
    error = made(problem.detail, remedy=problem.remedy, field=problem.field)
    error.problem = problem
    return error


def failure(response: httpx.Response) -> DataprunerError:
    """The exception that an answer other than success stands for."""
    try:
        return raised(Problem.model_validate_json(response.content))
    except ValidationError:
        return unexpected(response)
