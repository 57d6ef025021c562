"""`serve`: the whole service in one command."""

from __future__ import annotations

import threading
from typing import Annotated, Any

import typer

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0: any free one.", show_default="8000")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Worker processes; 0: run them elsewhere.", show_default="1")
    ] = None,
) -> None:
    """Serve the API, with workers and the scheduler. Settings are read from DATAPRUNER_* variables."""
    from api.app import (
        create_app,
    )  # the only place where the core knows of the API: where they are put together
    from datapruner.catalog import migrations
    from datapruner.catalog.database import Database
    from datapruner.service import logs, server, tokens
    from datapruner.settings import load

    given: dict[str, Any] = {"host": host, "port": port, "workers": workers}
    settings = load(**{name: value for name, value in given.items() if value is not None})
    logs.configure(settings)
    settings.home.mkdir(parents=True, exist_ok=True)
    listening = server.listen(settings.host, settings.port)
    db, stop = Database(settings.database), threading.Event()

    def announce() -> None:
        at = f"[{settings.host}]" if ":" in settings.host else settings.host
        typer.echo(f"datapruner listens on http://{at}:{listening.getsockname()[1]}  (documentation: /docs)")
        if settings.host not in _LOOPBACK:
            typer.echo(
                f"warning: {settings.host} can be reached from other machines, and the connection is not "
                "encrypted: put a proxy with TLS in front",
                err=True,
            )

    try:
        migrations.ensure_current(db)
        first = tokens.bootstrap(db, settings, tokens.load_key(settings))
        if first is not None:
            typer.echo(f"admin token: {first[0]}\nit is kept in {first[1]}, readable by you only")
        server.run(create_app(settings, stop), settings, db, stop, listening, announce)
    finally:
        listening.close()
        db.close()
