"""What endpoints ask for: the service, and the caller with the scope that they need.

As in `def list_runs(service: ServiceDep, caller: Reader, paging: IdPage) -> Page[RunAnswer]`. An endpoint
that has no use for the caller names the scope as `dependencies=[reader]`.

A caller shows a bearer token or, in a browser that signed in, the cookie; with the cookie, what changes
something brings the word of its page along (`service.sign_ins`).
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.problems import MissingScopeError, NotMeantError, UnauthorizedError
from datapruner.service import sign_ins, tokens
from datapruner.service.instance import Service
from datapruner.service.sign_ins import SignedIn
from datapruner.service.tokens import Caller

COOKIE = "datapruner_sign_in"
WORD = "X-CSRF-Token"
_SAFE = ("GET", "HEAD", "OPTIONS")
_bearer = HTTPBearer(auto_error=False, scheme_name="token", description="a token such as `dpr_…`")


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(service_of)]


def signed_in(request: Request, service: ServiceDep) -> SignedIn | None:
    """Whom the cookie of the request is of; None without one that is good."""
    held = request.cookies.get(COOKIE)
    return None if held is None else sign_ins.find(service, held, request.state.request_id)


class Needs:
    """A dependency that lets callers with a scope through.

    Raises UnauthorizedError, MissingScopeError, NotMeantError.
    """

    def __init__(self, scope: str) -> None:
        self.scope = scope

    def __call__(
        self,
        request: Request,
        service: ServiceDep,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    ) -> Caller:
        caller = (
            _of_browser(request, service)
            if credentials is None
            else tokens.authenticate(
                service.db, credentials.credentials, service.key, request.state.request_id
            )
        )
        if caller is None:
            raise UnauthorizedError("the token is unknown, revoked or over")
        if self.scope not in caller.scopes:
            raise MissingScopeError(self.scope)
        return caller


def _of_browser(request: Request, service: Service) -> Caller:
    found = signed_in(request, service)
    if found is None:
        raise UnauthorizedError("this needs a bearer token")
    if request.method not in _SAFE and not sign_ins.meant(found, request.headers.get(WORD, "")):
        raise NotMeantError()
    return found.caller


reader, writer = Depends(Needs("read")), Depends(Needs("write"))
sql_user, admin = Depends(Needs("sql")), Depends(Needs("admin"))
Reader = Annotated[Caller, reader]
Writer = Annotated[Caller, writer]
SqlUser = Annotated[Caller, sql_user]
Admin = Annotated[Caller, admin]
