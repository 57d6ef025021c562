"""Visits of pages: who is there, and that whatever goes wrong is a page too."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.routing import APIRoute

from api.dependencies import signed_in
from api.pages.rendering import page
from api.problems import ANSWERED, MissingScopeError, UnauthorizedError, told
from datapruner.service.sign_ins import SignedIn

SIGN_IN = "/sign-in"


class PageRoute(APIRoute):
    """A route whose errors are pages, and that sends whoever is not signed in to do so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def shown(request: Request) -> Response:
            try:
                return await answer(request)
            except UnauthorizedError:
                back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                at = f"{SIGN_IN}?next={quote(back, safe='/')}" if back != "/" else SIGN_IN
                return RedirectResponse(at, 303)
            except ANSWERED as error:
                problem, headers = told(error)
                answered = page(request, "problem.html", None, problem["status"], problem=problem)
                answered.headers.update(headers)
                return answered

        return shown


class _Holds:
    """A dependency that lets visitors with a scope through. Raises UnauthorizedError, MissingScopeError."""

    def __init__(self, scope: str) -> None:
        self.scope = scope

    def __call__(self, found: Annotated[SignedIn | None, Depends(signed_in)]) -> SignedIn:
        if found is None:
            raise UnauthorizedError("nobody is signed in")
        if self.scope not in found.caller.scopes:
            raise MissingScopeError(self.scope)
        return found


Visitor = Annotated[SignedIn, Depends(_Holds("read"))]
"""Who is there, and may read. Raises UnauthorizedError, MissingScopeError."""
SqlVisitor = Annotated[SignedIn, Depends(_Holds("sql"))]
"""Who is there, and may ask in SQL. Raises the same."""
