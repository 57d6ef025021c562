"""The pruning methods, with their options as JSON Schema."""

from __future__ import annotations

from fastapi import APIRouter

from api.dependencies import reader
from api.paging import IdPage, page
from datapruner.schemas.common import Page
from datapruner.schemas.methods import MethodAnswer
from datapruner.service import methods

router = APIRouter(prefix="/methods", tags=["methods"], dependencies=[reader])


@router.get("", operation_id="list_methods", summary="List the pruning methods")
def list_methods(paging: IdPage) -> Page[MethodAnswer]:
    """Every method that this service knows, ours and those of installed packages, by name."""
    found = methods.listing(limit=paging.limit + 1, after=paging.after)
    return page(found, paging.limit, lambda method: method.name)


@router.get("/{method}", operation_id="get_method", summary="Show a method and its options")
def get_method(method: str) -> MethodAnswer:
    return methods.show(method)
