"""The application: routers, middleware, error answers and the life of the service behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from fastapi import FastAPI

from api import docs, pages, problems, routes
from api.idempotency import IdempotencyMiddleware
from api.middleware import NulMiddleware, PlainPostMiddleware, RequestMiddleware, SizeMiddleware
from datapruner.service.instance import Service
from datapruner.service.stopping import Stopping
from datapruner.settings import Settings

if TYPE_CHECKING:
    from api.mcp import Endpoint


def create_app(settings: Settings, stopping: Stopping | None = None) -> FastAPI:
    """The service's API. Its database must be migrated; the lifespan opens and closes the rest."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.service = Service.open(settings, stopping or Stopping())
        try:
            async with nullcontext() if tools is None else tools.serving():
                yield
        finally:
            app.state.service.close()

    app = FastAPI(
        title="datapruner",
        version=version("datapruner"),
        summary="Find the samples, and the tokens inside them, that an SFT corpus is worth training on",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    problems.install(app)
    for router in routes.ROUTERS:
        app.include_router(router, prefix=routes.PREFIX, responses=problems.PROBLEM_RESPONSES)
    docs.install(app)
    for router in pages.ROUTERS:
        app.include_router(router)
    tools = _tools(app)
    app.add_middleware(IdempotencyMiddleware)  # the innermost
    app.add_middleware(SizeMiddleware, settings=settings)
    app.add_middleware(PlainPostMiddleware)
    app.add_middleware(NulMiddleware)
    app.add_middleware(RequestMiddleware)
    return app


def _tools(app: FastAPI) -> Endpoint | None:
    """The path for assistants, where its extra is installed."""
    if find_spec("mcp") is None:
        return None
    from api import mcp

    return mcp.install(app)
