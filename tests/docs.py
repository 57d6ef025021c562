"""The tables of docs/ that the code fills, between marks in the pages: `python -m tests.docs` writes them."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from types import NoneType
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import typer
from fastapi.routing import APIRoute
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

import datapruner
from api import routes as api
from api.dependencies import Needs
from benchmarks.table import page as findings
from datapruner import settings
from datapruner.cli import app
from datapruner.request.settings import RunSettings
from datapruner.rewriting.methods import METHODS as REWRITING
from datapruner.runs import columns, recipes
from datapruner.teacher import settings as teacher
from scorers.column import Column
from scorers.method import Method, Option
from scorers.methods.findings import measured
from scorers.methods.registry import OWN
from scorers.signals.columns import DERIVED_SIGNALS, SAMPLE_SIGNALS, TOKEN_SIGNALS, VECTOR_SIGNALS, VIEWS
from tests.compose import ROOT

DOCS = ROOT / "docs"
_ARXIV = re.compile(r"\b\d{4}\.\d{5}\b")
_MARKED = re.compile(r"(?<=^<!-- table: )(\w+) -->$.*?(?=^<!-- end -->$)", re.MULTILINE | re.DOTALL)


def written(page: str) -> str:
    """The text of a page with its tables as the code is now."""

    def fresh(found: re.Match[str]) -> str:
        return f"{found[1]} -->\n\n" + "\n".join(TABLES[found[1]]()).rstrip("\n") + "\n\n"

    return _MARKED.sub(fresh, page)


def without_tables(page: str) -> str:
    """What the code does not fill of a page."""
    return _MARKED.sub("", page)


def table(*head: str, rows: list[tuple[object, ...]]) -> Iterator[str]:
    yield from (f"| {' | '.join(head)} |", "|---" * len(head) + "|")
    for row in rows:
        cells = (" ".join(str(cell).split()).replace("|", "\\|").replace("<", "&lt;") for cell in row)
        yield f"| {' | '.join(cells)} |"


def code(value: object) -> str:
    """A value as it is given in the environment or on the command line."""
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{shown}`" if shown not in ("", "None", "[]", "{}") else ""


# Settings


def _variables(kind: type[BaseSettings], variable: Callable[[str], str]) -> Iterator[str]:
    rows: list[tuple[object, ...]] = []
    for name, field in kind.model_fields.items():
        known = field.default_factory is None and not isinstance(field.default, SecretStr)
        rows.append((code(variable(name)), code(field.default) if known else "", field.description))
    yield from table("Variable", "Default", "What it is", rows=rows)


# Methods


def _overview() -> Iterator[str]:
    rows = []
    for method in OWN:
        needs = ", ".join(map(code, sorted(method.needs(method.options()))))
        paper = _ARXIV.sub(r"[\g<0>](https://arxiv.org/abs/\g<0>)", method.paper)
        rows.append((code(method.name), method.title, needs or "nothing", paper))
    yield from table("Method", "What it is", "Reads, by default", "Paper", rows=rows)


def _signals() -> Iterator[str]:
    plain = (*SAMPLE_SIGNALS.values(), *DERIVED_SIGNALS.values(), *VECTOR_SIGNALS.values())
    rows = [(code(each.name), each.text) for each in plain]
    rows += [(code(f"token:{each.name}"), f"of a token: {each.text}") for each in TOKEN_SIGNALS.values()]
    rows += [(code(f"{view}:…"), f"a signal of {text}") for view, text in VIEWS.items()]
    yield from table("Signal", "What it is", rows=rows)


def _methods() -> Iterator[str]:
    for method in OWN:
        yield from (f"### `{method.name}`", "", f"{method.title}. {_told(type(method))}", "")
        yield from _options(method)
        yield from table("Column", "What it is", rows=[_column(column) for column in method.columns])
        yield ""


def _options(method: Method[Any]) -> Iterator[str]:
    kinds = get_type_hints(method.options)
    options = [(each, each.metadata["option"]) for each in fields(method.options)]
    rows = [
        (code(each.name), code(each.default), about.allowed(kinds[each.name]), about.help)
        for each, about in options
    ]
    if rows:
        yield from (*table("Option", "Default", "Allowed", "What it does", rows=rows), "")
    presets = [
        (code(name), ", ".join(f"{key} {value}" for key, value in preset.items()))
        for name, preset in method.presets.items()
    ]
    if presets:
        yield from (*table("Preset", "Settings", rows=presets), "")


def _column(column: Column) -> tuple[str, str]:
    where = {"token": "of a token: ", "threshold": "threshold in the report: "}.get(column.of, "")
    return code(column.name), where + column.text


def _findings() -> Iterator[str]:
    yield from findings.markdown(measured()).splitlines()
    yield from ("", "Measured with:", "", *(f"- {line}" for line in measured().sizes))


# Runs and recipes


def _settings(model: type[BaseModel]) -> Iterator[str]:
    yield from table("Setting", "Default", "Allowed", "What it is", rows=list(_fields(model)))


# SQL


def _columns(meanings: Mapping[str, str]) -> Iterator[str]:
    yield from table("Column", "What it is", rows=[(code(name), text) for name, text in meanings.items()])


# Rewriting


def _rewriting() -> Iterator[str]:
    for method in REWRITING.values():
        yield from (f"### `{method.name}`", "", f"{method.title}. Paper: {method.paper}.", "")
        yield from table("Option", "Default", "Allowed", "What it is", rows=list(_fields(method.options)))
        yield ""


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[object, ...]]:
    """The settings of a model, one a row; what has no words of its own is told by the settings in it."""
    for name, field in model.model_fields.items():
        within = [] if field.description else list(_parts(field.annotation, prefix + name))
        for part, place in within:
            yield from _fields(part, f"{place}.")
        if not within:
            default = "" if field.is_required() or field.default_factory else code(field.default)
            yield code(prefix + name), default, _allowed(field), field.description or ""


def _parts(annotation: Any, place: str) -> Iterator[tuple[type[BaseModel], str]]:
    """The models that a setting is made of, and where they are in it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, place
    inner = place + {list: "[]", dict: ".NAME"}.get(get_origin(annotation), "")
    for each in get_args(annotation):
        yield from _parts(each, inner)


def _allowed(field: FieldInfo) -> str:
    """The values that a setting may have, in the words of the methods' options; "" for others."""
    parts = [part for part in get_args(field.annotation) if part is not NoneType]
    kind = field.annotation if get_origin(field.annotation) is Literal or not parts else parts[0]
    if kind not in (bool, int, float) and get_origin(kind) is not Literal:
        return ""
    bounds: dict[str, float] = {}
    for each in field.metadata:
        bounds |= {name: getattr(each, name) for name in ("gt", "ge", "le", "lt") if hasattr(each, name)}
    if bounds.get("le", 0) >= 2**31 - 1:  # what files and databases hold
        del bounds["le"]
    return Option("", bounds.get("gt"), bounds.get("ge"), bounds.get("le"), bounds.get("lt")).allowed(kind)


# Commands


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by what is typed."""

    def of(command: Any, typed: str) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", {})
        if not inner or command.invoke_without_command:
            yield typed, command
        for name, each in inner.items():
            yield from of(each, f"{typed} {name}")

    root: Any = typer.main.get_command(app)
    for name, command in root.commands.items():
        yield from of(command, f"datapruner {name}")


def _commands() -> Iterator[str]:
    rows = [
        (code(" ".join([typed, *_arguments(command)])), (command.help or "").split("\n\n")[0])
        for typed, command in commands()
    ]
    yield from table("Command", "What it does", rows=rows)


def _arguments(command: Any) -> list[str]:
    with command.make_context(None, [], resilient_parsing=True) as context:
        pieces = command.collect_usage_pieces(context)
    shown = (re.sub(r"[{}]", "", each).replace("[[", "[").replace("]]", "]") for each in pieces)
    return [piece for piece in shown if piece not in ("[OPTIONS]", "COMMAND [ARGS]...")]


# Python


def _library() -> Iterator[str]:
    rows = [(code(f"datapruner.{name}"), _told(getattr(datapruner, name))) for name in datapruner.__all__]
    yield from table("Name", "What it is", rows=rows)


def _client() -> Iterator[str]:
    with datapruner.Client("http://127.0.0.1:8000", token="t") as client:
        parts = {name: part for name, part in vars(client).items() if not name.startswith("_")}
        rows = [
            (code(f"{name}.{method}".lstrip(".")), _told(getattr(part, method)))
            for name, part in {"": client, **parts}.items()
            for kind in reversed(type(part).__mro__)
            for method in vars(kind)
            if not method.startswith("_") and callable(getattr(part, method))
        ]
    yield from table("Method", "What it does", rows=rows)


def _told(of: object) -> str:
    return (inspect.getdoc(of) or "").split("\n\n")[0]


# Routes


def routes() -> Iterator[tuple[str, Any]]:
    """Every operation of the HTTP API by method and path."""
    document = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
    for path, operations in document["paths"].items():
        for verb, operation in operations.items():
            yield f"{verb.upper()} {path}", operation


def _scopes() -> dict[str, str]:
    """The scope that a route wants of a token, by method and path."""

    def within(dependant: Any) -> Iterator[str]:
        if isinstance(dependant.call, Needs):
            yield dependant.call.scope
        for each in dependant.dependencies:
            yield from within(each)

    return {
        f"{verb} {api.PREFIX}{route.path}": ", ".join(dict.fromkeys(within(route.dependant)))
        for router in api.ROUTERS
        for route in cast("list[APIRoute]", router.routes)
        for verb in route.methods
    }


def _routes() -> Iterator[str]:
    rows, scopes = [], _scopes()
    for route, operation in routes():
        words = [operation.get("description", "").split("\n\n")[0]]
        if operation["summary"] != operation["operationId"].replace("_", " ").title():
            words.insert(0, operation["summary"] + ("." if words[0] else ""))
        rows.append((code(route), scopes[route], " ".join(filter(None, words))))
    yield from table("Route", "Scope", "What it does", rows=rows)


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "settings": lambda: _variables(settings.Settings, settings.variable),
    "teacher": lambda: _variables(teacher.TeacherSettings, teacher.variable),
    "overview": _overview,
    "signals": _signals,
    "methods": _methods,
    "findings": _findings,
    "found": lambda: findings.summary(measured()),
    "run": lambda: _settings(RunSettings),
    "recipe": lambda: _settings(recipes.Document),
    "sample_scores": lambda: _columns(columns.sample_texts(columns.COLUMNS)),
    "token_scores": lambda: _columns(columns.token_texts(columns.TOKEN_COLUMNS)),
    "rewriting": _rewriting,
    "commands": _commands,
    "library": _library,
    "client": _client,
    "routes": _routes,
}

if __name__ == "__main__":
    for each in (ROOT / "README.md", *DOCS.glob("*.md")):
        each.write_text(written(each.read_text(encoding="utf-8")), encoding="utf-8")
