"""A published file as an answer: ranges, validators and a checksum, streamed from where it lies.

Notable choices:
- a published file never changes, so that its SHA-256 is a strong ETag;
- what RFC 9110 says of ranges where Starlette does otherwise: malformed ones and unknown units are ignored,
  as are all on HEAD, and of several ranges those beyond the end are left out.
"""

from __future__ import annotations

import base64
import re
from datetime import UTC
from email.utils import format_datetime
from pathlib import Path

from fastapi import Request, status
from fastapi.responses import FileResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from datapruner.service.exports import ExportFile

_RANGES = re.compile(r"\s*bytes\s*=(?P<specs>[-\d,\s]+)", re.IGNORECASE | re.ASCII)
_SPEC = re.compile(r"(?P<first>\d{0,18})-(?P<last>\d{0,18})", re.ASCII)
_TAG = re.compile(r'(?:W/)?("[^"]*")')


def download(request: Request, file: ExportFile, filename: str) -> Response:
    """Answer a GET or HEAD with the file, under that name: 200, 206 for ranges, or 304.

    Raises HTTPException 416 when no range that was asked for is in the file, OSError when it is gone.
    """
    tag = f'"{file.sha256}"'
    headers = {
        "ETag": tag,
        "Last-Modified": format_datetime(file.modified.replace(tzinfo=UTC), usegmt=True),
        "Cache-Control": "private, no-cache",
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(file.sha256)).decode()}:",
    }
    if request.method in ("GET", "HEAD") and _is_known(request.headers.getlist("if-none-match"), tag):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    about = file.path.stat()
    given = request.headers.get("range")
    condition = request.headers.get("if-range")
    ranges = None
    if given is not None and request.method == "GET" and condition in (None, tag, headers["Last-Modified"]):
        ranges = _ranges(given, about.st_size)
    return _File(
        file.path,
        ranges=ranges,
        headers=headers,
        media_type=file.media_type,
        filename=filename,
        stat_result=about,
    )


class _File(FileResponse):
    """A file of which `ranges`, a well-formed header, are sent: all of it when they are None."""

    def __init__(self, path: Path, *, ranges: str | None, **about: object) -> None:
        super().__init__(path, **about)  # type: ignore[arg-type]
        self.ranges = ranges

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [pair for pair in scope["headers"] if pair[0] not in (b"range", b"if-range")]
        if self.ranges is not None:
            headers.append((b"range", self.ranges.encode()))
        await super().__call__({**scope, "headers": headers}, receive, send)


def _is_known(given: list[str], tag: str) -> bool:
    """Whether If-None-Match names the file's tag; tags are compared weakly, as for every GET."""
    names = ",".join(given)
    return names.strip() == "*" or tag in _TAG.findall(names)


def _ranges(given: str, size: int) -> str | None:
    """The header with the ranges that the file has; None when it is to be ignored. Raises HTTPException."""
    found = _RANGES.fullmatch(given)
    if found is None:
        return None
    inside, any_range = [], False
    for text in filter(None, (part.strip() for part in found["specs"].split(","))):
        spec = _SPEC.fullmatch(text)
        if spec is None or text == "-":
            return None
        first, last = spec["first"], spec["last"]
        if first and last and int(last) < int(first):
            return None
        any_range = True
        if (int(first) < size) if first else (int(last) > 0 and size > 0):
            inside.append(text)
    if any_range and not inside:
        raise HTTPException(
            status.HTTP_416_RANGE_NOT_SATISFIABLE,
            f"the file has {size} bytes",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return f"bytes={','.join(inside)}" if inside else None
