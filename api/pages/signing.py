"""Signing in with a token, and out again."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from api.dependencies import COOKIE, ServiceDep, signed_in
from api.pages.rendering import page
from api.pages.visits import SIGN_IN, PageRoute
from api.problems import NotMeantError
from datapruner.service import sign_ins
from datapruner.service.sign_ins import SignedIn

router = APIRouter(route_class=PageRoute, include_in_schema=False)

Maybe = Annotated[SignedIn | None, Depends(signed_in)]
_OURS = ("same-origin", "none")


@router.get(SIGN_IN, operation_id="page_sign_in")
def page_sign_in(request: Request, visitor: Maybe, next: str = "/") -> Response:  # noqa: A002
    """The form, or the page that was wanted for whoever is signed in."""
    if visitor is not None:
        return RedirectResponse(_ours(next), 303)
    return page(request, "sign_in.html", None, next=_ours(next), refused=False)


@router.post(SIGN_IN, operation_id="sign_in")
def sign_in(
    request: Request,
    service: ServiceDep,
    token: Annotated[str, Form(max_length=200)],
    next: Annotated[str, Form(max_length=2000)] = "/",  # noqa: A002
) -> Response:
    """Sign a browser in. Another site may not do so in its name."""
    if request.headers.get("sec-fetch-site", "none") not in _OURS:
        raise NotMeantError()
    held = sign_ins.begin(service, token.strip())
    if held is None:
        return page(request, "sign_in.html", None, 403, next=_ours(next), refused=True)
    answer = RedirectResponse(_ours(next), 303)
    answer.set_cookie(
        COOKIE,
        held,
        max_age=int(sign_ins.LASTS.total_seconds()),
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


@router.post("/sign-out", operation_id="sign_out")
def sign_out(
    request: Request, service: ServiceDep, visitor: Maybe, word: Annotated[str, Form(max_length=200)] = ""
) -> Response:
    """End the sign-in, here and in the catalog."""
    if visitor is not None:
        if not sign_ins.meant(visitor, word):
            raise NotMeantError()
        sign_ins.end(service, request.cookies[COOKIE])
    answer = RedirectResponse(SIGN_IN, 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


def _ours(address: str) -> str:
    """The address if it is a path of this service, or the home page: nobody is led elsewhere."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc or not re.match(r"/(?![/\\])", address) or not address.isprintable():
        return "/"
    return address
