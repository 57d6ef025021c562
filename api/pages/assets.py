"""The files of pages: style sheets and scripts, under an address that changes with them, kept by browsers."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from datapruner.service.page_files import shared

_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_OWN = Path(__file__).with_name("static")

router = APIRouter(include_in_schema=False)


@router.get("/static/{version}/{name}", operation_id="page_file")
def page_file(request: Request, version: str, name: str) -> Response:
    """A file of pages. An old version is not found: its page is to be loaded anew."""
    if version != folder().rpartition("/")[2] or name not in _files():
        raise HTTPException(404)
    packed = "gzip" in request.headers.get("accept-encoding", "")
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    headers |= {"X-Content-Type-Options": "nosniff"}
    headers |= {"Content-Encoding": "gzip"} if packed else {}
    content = _packed(name) if packed else _files()[name].read_bytes()
    return Response(content, headers=headers, media_type=_TYPES[Path(name).suffix])


@cache
def folder() -> str:
    """The address of the folder of all files: scripts find one another beside them."""
    digest = hashlib.sha256()
    for name, file in sorted(_files().items()):
        digest.update(f"{name} ".encode() + hashlib.sha256(file.read_bytes()).digest())
    return f"/static/{digest.hexdigest()[:16]}"


@cache
def _files() -> dict[str, Path]:
    return shared() | {file.name: file for file in _OWN.iterdir() if file.suffix in _TYPES}


@cache
def _packed(name: str) -> bytes:
    return gzip.compress(_files()[name].read_bytes(), compresslevel=6, mtime=0)
