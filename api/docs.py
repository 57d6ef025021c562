"""The documentation of the API: its OpenAPI document, FastAPI's with what endpoints have in common said once,
and a page at /docs to read it and try it, whose files come from a package, so that no network is needed.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from datapruner.problem import Problem

_ASSETS = "/docs/assets"
_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; "
    "script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'"
)
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
    """Let `app.openapi()` give the whole document, and serve the page."""
    plain = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(plain())
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
    folder = files("fastapi_offline").joinpath("static")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url=app.openapi_url or "",
            title=f"{app.title} API",
            swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{_ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{_ASSETS}/favicon.png",
        )
        page.headers["Content-Security-Policy"] = _POLICY
        return page

    app.mount(_ASSETS, StaticFiles(directory=str(folder)), name="docs-assets")


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
