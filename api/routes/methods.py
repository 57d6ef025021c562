"""The pruning methods, with their options as JSON Schema."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fastapi import APIRouter

from api.dependencies import reader
from api.paging import IdPage, page
from datapruner.errors import NotFoundError
from datapruner.schemas.common import Page
from datapruner.schemas.methods import MethodAnswer
from scorers.method import Method, Option
from scorers.methods import registry

router = APIRouter(prefix="/methods", tags=["methods"], dependencies=[reader])
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


@router.get("", operation_id="list_methods", summary="List the pruning methods")
def list_methods(paging: IdPage) -> Page[MethodAnswer]:
    """Every method that this service knows, ours and those of installed packages, by name."""
    found = sorted(registry.methods().values(), key=lambda method: method.name)
    rest = [_answer(method) for method in found if paging.after is None or method.name > paging.after]
    return page(rest, paging.limit, lambda method: method.name)


@router.get("/{method}", operation_id="get_method", summary="Show a method and its options")
def get_method(method: str) -> MethodAnswer:
    known = registry.methods()
    if method not in known:
        raise NotFoundError(f"no method {method!r}", field="method", remedy=f"known: {', '.join(known)}")
    return _answer(known[method])


def _answer(method: Method[Any]) -> MethodAnswer:
    kinds = get_type_hints(method.options)
    properties = {
        each.name: _schema(each.metadata["option"], kinds[each.name]) | {"default": each.default}
        for each in fields(method.options)
    }
    return MethodAnswer(
        name=method.name,
        title=method.title,
        paper=method.paper,
        prunes_tokens="token_keep" in properties,
        options={"type": "object", "properties": properties, "additionalProperties": False},
        presets={name: dict(preset) for name, preset in method.presets.items()},
    )


def _schema(option: Option, kind: Any) -> dict[str, Any]:
    """JSON Schema of one option, so that a form can be made of it."""
    if get_origin(kind) is Literal:
        return {"description": option.help, "enum": list(get_args(kind))}
    bounds = {
        "exclusiveMinimum": option.above,
        "minimum": option.at_least,
        "maximum": option.at_most,
        "exclusiveMaximum": option.below,
    }
    if kind is str:
        bounds = {"maxLength": option.longest}
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    return {"description": option.help, "type": _TYPES[kind], **given}
