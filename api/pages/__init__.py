"""The web interface: pages that are made here, and the files that they ask for.

What a page shows of a project is what the service says to its visitor's token; what its scripts change goes
through the API, with the cookie and the page's word (`api.dependencies`).
"""

from __future__ import annotations

from api.pages import assets, comparing, datasets, home, rows, runs, schedules, signing, sql

ROUTERS = (
    signing.router,
    home.router,
    datasets.router,
    datasets.data,
    runs.router,
    runs.data,
    rows.router,
    rows.data,
    comparing.router,
    comparing.data,
    schedules.router,
    sql.router,
    assets.router,
)
