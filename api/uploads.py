"""Request bodies that carry data: a JSON document with inline rows, or a form with a file.

Notable choices:
- a form is parsed as it comes: files of more than a megabyte go to a temporary file (TMPDIR), everything
  else is small by limit. It must be complete, its closing boundary included: no file is taken half;
- JSON bodies have to be held in memory and are limited accordingly, whatever the limit of files;
- nothing that a sender says about a file is believed: its name serves for messages, its type for nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from api.problems import TooLargeError
from datapruner.errors import StorageError, UsageError
from datapruner.service.uploads import Incoming, shown_name

MAX_JSON_BYTES = 32 << 20
"""Of a JSON body; larger data is to be sent as a file."""
_MAX_FIELD_BYTES = 1 << 20
_MAX_FIELDS = 50
_CHUNK = 1 << 20
_SPLIT = "send it in parts, as versions, or ask for a larger DATAPRUNER_MAX_UPLOAD_BYTES"
_DIGEST = re.compile(r"sha-256\s*=\s*:([A-Za-z0-9+/=]+):", re.IGNORECASE)

DocumentT = TypeVar("DocumentT", bound=BaseModel)
FormT = TypeVar("FormT", bound=BaseModel)


@asynccontextmanager
async def received(
    request: Request, document: type[DocumentT], form: type[FormT]
) -> AsyncIterator[tuple[DocumentT | FormT, Incoming | None]]:
    """The body as a `document` (JSON), or as a `form` and its file. Open while the block runs.

    Raises HTTPException 415 for another content type and 400 for what is cut off or malformed, TooLargeError,
    and RequestValidationError or UsageError for fields that are wrong.
    """
    limit: int = request.app.state.service.settings.max_upload_bytes
    match request.headers.get("content-type", "").split(";")[0].strip().lower():
        case "application/json":
            yield await _read_document(request, document), None
        case "multipart/form-data":
            async with _parts(request) as parts:
                file = _file_of(parts, request.headers, limit)
                fields = {name: value for name, value in parts.multi_items() if name != "file"}
                yield valid(form, fields), file
        case other:
            raise HTTPException(
                415, f"{other or 'no content type'}: send application/json or multipart/form-data"
            )


async def _read_document(request: Request, model: type[DocumentT]) -> DocumentT:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            raise TooLargeError(
                f"a JSON body may have {MAX_JSON_BYTES:,} bytes", remedy="send the rows as a file, in a form"
            )
    _check_digest(body, request.headers)
    return await run_in_threadpool(_valid_json, model, bytes(body))


def _valid_json(model: type[DocumentT], body: bytes) -> DocumentT:
    try:
        content = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from error
    return valid(model, content)


def valid(model: type[DocumentT], content: Any) -> DocumentT:
    """`content` as a `model`. Raises RequestValidationError."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in found]) from error


@asynccontextmanager
async def _parts(request: Request) -> AsyncIterator[FormData]:
    parser = _CompleteParser(
        request.headers,
        request.stream(),
        max_files=1,
        max_fields=_MAX_FIELDS,
        max_part_size=_MAX_FIELD_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"the form cannot be read: {error.message}") from error
    except OSError as error:
        raise StorageError(
            f"the upload cannot be buffered: {error.strerror or error}",
            remedy="free the disk of temporary files, or set TMPDIR to another",
        ) from error
    try:
        if not parser.complete:
            raise HTTPException(400, "the form ends before its closing boundary")
        yield form
    finally:
        await form.close()


class _CompleteParser(MultiPartParser):
    complete = False

    def on_end(self) -> None:
        self.complete = True


def _file_of(form: FormData, headers: Headers, limit: int) -> Incoming:
    """The one file of a form. Raises UsageError for none, for an empty one and for a field given twice, and
    TooLargeError."""
    seen: set[str] = set()
    for name, value in form.multi_items():
        if name in seen:
            raise UsageError(f"the field {name!r} is given twice", remedy="give it once", field=name)
        seen.add(name)
        if isinstance(value, UploadFile) != (name == "file"):
            wanted = "has to be a file" if name == "file" else "is a file"
            raise UsageError(f"the field {name!r} {wanted}", remedy="the file's field is `file`", field=name)
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise UsageError("there is no file", remedy="send it as the form field `file`", field="file")
    name = shown_name(file.filename)
    if not file.size:
        raise UsageError(f"{name}: the file is empty", remedy="send one with rows", field="file")
    if file.size > limit:
        raise TooLargeError(f"{name}: {file.size:,} bytes, of {limit:,} at most", remedy=_SPLIT, field="file")
    given = form.get("sha256")
    digest = given.lower() if isinstance(given, str) and given else _digest(file.headers) or _digest(headers)
    return Incoming(name, file.size, _chunks(file), sha256=digest)


def _chunks(file: UploadFile) -> Iterator[bytes]:
    file.file.seek(0)
    return iter(partial(file.file.read, _CHUNK), b"")


def _digest(headers: Headers) -> str | None:
    """The SHA-256 of a Repr-Digest header (RFC 9530) in hex. Other algorithms are not looked at."""
    found = _DIGEST.search(headers.get("repr-digest", ""))
    if found is None:
        return None
    try:
        return base64.b64decode(found[1], validate=True).hex()
    except binascii.Error as error:
        raise UsageError("Repr-Digest is not base64", field="Repr-Digest") from error


def _check_digest(body: bytes | bytearray, headers: Headers) -> None:
    expected = _digest(headers)
    if expected is not None and expected != sha256(body).hexdigest():
        raise UsageError("the body is not what Repr-Digest says", remedy="send it again", field="Repr-Digest")


def two_bodies(document: type[BaseModel], form: type[BaseModel], *, file: str) -> dict[str, Any]:
    """OpenAPI of a body that is JSON or a form with a file, for `openapi_extra`."""
    fields = _inlined(form)
    about_file = {"type": "string", "format": "binary", "description": file}
    fields["properties"] = {"file": about_file, **fields["properties"]}
    fields["required"] = ["file", *fields.get("required", [])]
    content = {
        "multipart/form-data": {"schema": fields},
        "application/json": {"schema": _inlined(document)},
    }
    return {"requestBody": {"required": True, "content": content}}


def _inlined(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a model with what it refers to in place, as `$defs` have none in OpenAPI."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inline(node: Any) -> Any:
        if isinstance(node, list):
            return [inline(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            node = definitions[node.pop("$ref").rpartition("/")[2]] | node
        return {key: inline(value) for key, value in node.items() if key != "discriminator"}

    inlined: dict[str, Any] = inline(schema)
    return inlined
