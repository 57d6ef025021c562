"""Templates to answers: what every page has, and the headers that it is sent with.

Notable choices:
- nothing that a page says is a script: scripts are files of ours, so the policy allows those alone. plotly
  sets attributes of style on what it draws, and makes one empty style sheet that it adds rules to;
- texts of rows go through `shown`, in templates as in reports.
"""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment

from api.pages import assets
from datapruner import shown
from datapruner.service.page_files import sheets
from datapruner.service.sign_ins import SignedIn

_TEMPLATES = Path(__file__).with_name("templates")
_EMPTY_SHEET = b64encode(sha256(b"").digest()).decode()
_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    f"style-src-elem 'self' 'sha256-{_EMPTY_SHEET}'; style-src-attr 'unsafe-inline'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def page(
    request: Request, template: str, visitor: SignedIn | None, status: int = 200, **values: Any
) -> HTMLResponse:
    """The page that a template makes of these values; `visitor`, `here` and `files` are there in each."""
    text = (
        _environment()
        .get_template(template)
        .render(visitor=visitor, here=request.url.path, files=assets.folder(), sheets=sheets(), **values)
    )
    return HTMLResponse(text, status, headers=_HEADERS)


def part(html: str) -> HTMLResponse:
    """A part of a page, for its script to put in."""
    return HTMLResponse(html, headers=_HEADERS)


@cache
def _environment() -> Environment:
    return shown.templates(_TEMPLATES)
