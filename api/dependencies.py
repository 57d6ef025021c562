"""What endpoints ask for: the service, and the caller with the scope that they need.

As in `def list_runs(service: ServiceDep, caller: Reader, paging: IdPage) -> Page[RunAnswer]`. An endpoint
that has no use for the caller names the scope as `dependencies=[reader]`.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.problems import MissingScopeError, UnauthorizedError
from datapruner.service import tokens
from datapruner.service.instance import Service
from datapruner.service.tokens import Caller

_bearer = HTTPBearer(auto_error=False, scheme_name="token", description="a token such as `dpr_…`")


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(service_of)]


class Needs:
    """A dependency that lets callers with a scope through. Raises UnauthorizedError, MissingScopeError."""

    def __init__(self, scope: str) -> None:
        self.scope = scope

    def __call__(
        self,
        request: Request,
        service: ServiceDep,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    ) -> Caller:
        if credentials is None:
            raise UnauthorizedError("this needs a bearer token")
        caller = tokens.authenticate(
            service.db, credentials.credentials, service.key, request.state.request_id
        )
        if caller is None:
            raise UnauthorizedError("the token is unknown, revoked or over")
        if self.scope not in caller.scopes:
            raise MissingScopeError(self.scope)
        return caller


reader, writer = Depends(Needs("read")), Depends(Needs("write"))
sql_user, admin = Depends(Needs("sql")), Depends(Needs("admin"))
Reader = Annotated[Caller, reader]
Writer = Annotated[Caller, writer]
SqlUser = Annotated[Caller, sql_user]
Admin = Annotated[Caller, admin]
