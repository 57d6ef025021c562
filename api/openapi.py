"""The OpenAPI document: FastAPI's, with what endpoints have in common said once.

`python -m api.openapi` writes openapi.json, which is committed; a test compares the two.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from datapruner.problem import Problem
from datapruner.settings import Settings

FILE = Path(__file__).parents[1] / "openapi.json"
_WRITES = ("post", "put", "patch")
#: Query parameters that name a thing, which may not be there.
_NAMING = {"dataset", "run", "schema"}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "any text that is new for each request: a repetition within a day gets the first answer",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": "`wait=N`: answer with what came of the job when it ends within N seconds (at most 600)",
    "schema": {"type": "string", "pattern": "^wait=[0-9]{1,3}$"},
}


def install(app: FastAPI) -> None:
    """Let `app.openapi()` give the whole document."""
    plain = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(plain())
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status in _impossible(path, method, operation):
                operation["responses"].pop(status, None)
            common = ([_KEY] if method == "post" else []) + (
                [_PREFER] if "202" in operation["responses"] else []
            )
            if common:
                operation["parameters"] = [*operation.get("parameters", []), *common]
    return document


def _impossible(path: str, method: str, operation: dict[str, Any]) -> set[str]:
    """Statuses that are documented for all operations and that this one never gives."""
    never = set()
    if "security" not in operation:
        never |= {"401", "403", "404", "429"}
    if method not in _WRITES:
        never |= {"400", "413", "429"}
        if "{" not in path and not _NAMING & {each["name"] for each in operation.get("parameters", [])}:
            never.add("404")
    if "multipart/form-data" not in operation.get("requestBody", {}).get("content", {}):
        never.add("415")
    if method == "get":
        never.add("409")
    if method == "get" and not operation.get("parameters"):
        never.add("422")
    return never


def text() -> str:
    """The document of this version, as it is committed."""
    from api.app import create_app

    return json.dumps(create_app(Settings()).openapi(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
