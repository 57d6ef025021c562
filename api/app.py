"""The application: routers, middleware, error answers and the life of the service behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from api import docs, pages, problems, routes
from api.idempotency import IdempotencyMiddleware
from api.middleware import NulMiddleware, PlainPostMiddleware, RequestMiddleware, SizeMiddleware
from datapruner.service.instance import Service
from datapruner.service.stopping import Stopping
from datapruner.settings import Settings


def create_app(settings: Settings, stopping: Stopping | None = None) -> FastAPI:
    """The service's API. Its database must be migrated; the lifespan opens and closes the rest."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.service = Service.open(settings, stopping or Stopping())
        try:
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
    app.add_middleware(IdempotencyMiddleware)  # the innermost
    app.add_middleware(SizeMiddleware, settings=settings)
    app.add_middleware(PlainPostMiddleware)
    app.add_middleware(NulMiddleware)
    app.add_middleware(RequestMiddleware)
    return app
