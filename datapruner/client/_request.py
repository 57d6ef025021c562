"""One request to the service as an immutable value: what to send, and how to read the answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Generic, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from datapruner.errors import ServiceError, UsageError
from datapruner.validation import first_problem

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """`path` is below /v1; `upload` goes as multipart beside the fields of `form`."""

    method: str
    path: str
    read: Callable[[httpx.Response], T] = field(repr=False)
    query: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = field(default=None, repr=False)
    form: Mapping[str, str] = field(default_factory=dict)
    upload: Path | None = None

    def asking(self, **query: str | int | None) -> Self:
        """The same request with more in its query; None leaves a parameter out."""
        more = {name: value for name, value in query.items() if value is not None}
        return replace(self, query={**self.query, **more})


def at(template: str, **names: str | int) -> str:
    """A path made of `template` with every name quoted. Raises UsageError for one that cannot be there."""
    for name, value in names.items():
        if str(value) in ("", ".", ".."):
            raise UsageError(f"{value!r} names no {name}", field=name)
    return template.format_map({name: quote(str(value), safe="") for name, value in names.items()})


def reading(shape: Any) -> Callable[[httpx.Response], Any]:
    """How to read JSON of `shape`, which is a type. Callers say the type again, in their signature."""
    adapter = _adapter(shape)

    def read(response: httpx.Response) -> Any:
        try:
            return adapter.validate_json(response.content)
        except ValidationError as error:
            raise unexpected(response) from error

    return read


def text(response: httpx.Response) -> str:
    """Read a plain text."""
    return response.text


def binary(response: httpx.Response) -> bytes:
    """Read bytes."""
    return response.content


def nothing(response: httpx.Response) -> None:
    """Read nothing: the body is for whoever opened the answer."""


@cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def unexpected(response: httpx.Response) -> ServiceError:
    """That an answer is not what the service sends."""
    kind = response.headers.get("Content-Type", "no content type")
    asked = f"{response.request.method} {response.request.url.copy_with(query=None)}"
    return ServiceError(
        f"{asked} answered {response.status_code} with an unexpected body ({kind})",
        remedy="check that the URL is of a datapruner service, and of a version like this client's",
    )


def body(model: type[BaseModel], /, **values: Any) -> bytes:
    """The JSON of a request body, with what is given only. Raises UsageError naming the field."""
    return encoded(checked(model, **values))


def checked(model: type[BaseModel], /, **values: Any) -> dict[str, Any]:
    """Values that the service will take for `model`, ready for JSON. Raises UsageError naming the field."""
    try:
        return model.model_validate(values).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        raise first_problem(error, "") from None


def encoded(document: Any) -> bytes:
    """Strict JSON. Raises UsageError."""
    try:
        return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise UsageError(f"this cannot be sent as JSON: {error}") from error
