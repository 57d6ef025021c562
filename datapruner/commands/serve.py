"""`serve`: the whole service in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from datapruner.commands import options as given
from datapruner.commands.display import Output
from datapruner.system import garbage

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0: any free one.", show_default="8000")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Worker processes; 0: run them elsewhere.", show_default="1")
    ] = None,
    as_json: given.Json = False,
) -> None:
    """Serve the API, with workers and the scheduler. Settings are read from DATAPRUNER_* variables.

    The first start makes an admin token and says in which file it is; the token itself is never shown. With
    --json that file and the URL are one document, once the service answers.
    """
    with garbage.put_off():
        # The only place where the core knows of the API: where they are put together.
        from api.app import create_app
        from datapruner.catalog import migrations
        from datapruner.catalog.database import Database
        from datapruner.service import logs, server, token_key, tokens
        from datapruner.service.stopping import Stopping
        from datapruner.settings import load

    asked: dict[str, Any] = {"host": host, "port": port, "workers": workers}
    settings = load(**{name: value for name, value in asked.items() if value is not None})
    output = Output(as_json=as_json)
    logs.configure(settings)
    settings.home.mkdir(parents=True, exist_ok=True)
    listening = server.listen(settings.host, settings.port)
    db, stopping = Database(settings.database), Stopping()
    token_file: Path | None = None

    def announce() -> None:
        at = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"http://{at}:{listening.getsockname()[1]}"
        output.document({"url": url, "admin_token_file": None if token_file is None else str(token_file)})
        output.show(Text(f"datapruner listens on {url} : open it in a browser and sign in with a token"))
        if settings.host not in _LOOPBACK:
            output.note(
                f"warning: {settings.host} can be reached from other machines, and the connection is not "
                "encrypted: put a proxy with TLS in front"
            )

    try:
        with garbage.put_off():
            migrations.ensure_current(db)
            token_file = tokens.bootstrap(db, settings, token_key.load_key(settings))
            app = create_app(settings, stopping)
        if (first := tokens.first_token_file(settings)).is_file():
            output.show(Text(f"the admin token is in {first}, readable by you only"))
        server.run(app, settings, db, stopping, listening, announce)
    finally:
        listening.close()
        db.close()
