"""Tokens, for admins: make, list, end."""

from __future__ import annotations

from fastapi import APIRouter, Response, status

from api.dependencies import Admin, ServiceDep, admin
from api.paging import IdPage, page
from datapruner.schemas.common import Page
from datapruner.schemas.projects import NewToken, NewTokenAnswer, TokenAnswer
from datapruner.service import tokens

router = APIRouter(prefix="/tokens", tags=["tokens"], dependencies=[admin])


@router.post(
    "", operation_id="create_token", status_code=status.HTTP_201_CREATED, summary="Make a token of a project"
)
def create_token(body: NewToken, service: ServiceDep, caller: Admin, response: Response) -> NewTokenAnswer:
    """`secret` is shown in this answer only; afterwards only its hash is known."""
    token = tokens.create(service, caller, body)
    response.headers["Cache-Control"] = "no-store"
    return token


@router.get("", operation_id="list_tokens", summary="List the tokens of all projects")
def list_tokens(service: ServiceDep, paging: IdPage) -> Page[TokenAnswer]:
    """Revoked and expired ones too, the newest first."""
    found = tokens.listing(service, limit=paging.limit + 1, before=paging.after)
    return page(found, paging.limit, lambda token: token.id)


@router.delete("/{token}", operation_id="revoke_token", summary="End a token at once")
def revoke_token(token: str, service: ServiceDep) -> TokenAnswer:
    """Its jobs go on. A token that is ended stays so."""
    return tokens.revoke(service, token)
