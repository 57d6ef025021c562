"""The routers, one for each resource; their paths follow `PREFIX`.

Endpoints that touch the database are plain functions, so that they run in the thread pool.
"""

from __future__ import annotations

from api.routes import (
    datasets,
    evaluations,
    exports,
    health,
    jobs,
    methods,
    projects,
    prune,
    runs,
    schedules,
    sql,
    tokens,
)

PREFIX = "/v1"
#: In the order of the documentation.
ROUTERS = tuple(
    resource.router
    for resource in (
        prune,
        datasets,
        runs,
        evaluations,
        exports,
        jobs,
        schedules,
        sql,
        methods,
        tokens,
        projects,
        health,
    )
)
