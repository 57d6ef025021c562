"""The pruning methods that this service knows, ours and those of installed packages."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from datapruner.errors import NotFoundError
from datapruner.schemas.methods import ColumnAnswer, FindingAnswer, MethodAnswer
from scorers.method import Method, Option
from scorers.methods import registry
from scorers.methods.findings import Finding, measured

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def listing(*, limit: int, after: str | None = None) -> list[MethodAnswer]:
    """The first `limit` methods by name, those after the name `after` if it is given."""
    found = sorted(registry.methods().values(), key=lambda method: method.name)
    return [_answer(method) for method in found if after is None or method.name > after][:limit]


def show(name: str) -> MethodAnswer:
    """Raises NotFoundError."""
    known = registry.methods()
    if name not in known:
        raise NotFoundError(f"no method {name!r}", field="method", remedy=f"known: {', '.join(known)}")
    return _answer(known[name])


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
        prunes_tokens=bool(properties.keys() & {"token_keep", "protect_end"}),
        options={"type": "object", "properties": properties, "additionalProperties": False},
        presets={name: dict(preset) for name, preset in method.presets.items()},
        columns=[ColumnAnswer(**asdict(column)) for column in method.columns],
        findings=[_finding(each) for each in measured().of(method.name)],
        measured_with=list(measured().sizes),
    )


def _finding(finding: Finding) -> FindingAnswer:
    about = asdict(finding)
    del about["method"]
    return FindingAnswer.model_validate(about)


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
