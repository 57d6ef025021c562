"""`worker` and `db`: what runs beside the API on the machines of a service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from datapruner.commands import options as given
from datapruner.commands.display import Output
from datapruner.errors import UsageError
from datapruner.system import garbage

if TYPE_CHECKING:
    from datapruner.catalog.database import Database

db_app = typer.Typer(no_args_is_help=True)


def worker(
    once: Annotated[bool, typer.Option("--once", help="End when no job is left that may run now.")] = False,
) -> None:
    """Take jobs from the queue of a service and do them, until SIGTERM or Ctrl-C."""
    with garbage.put_off():
        from datapruner.service import logs
        from datapruner.service.worker import run_worker
        from datapruner.settings import load

    settings = load()
    logs.configure(settings)
    run_worker(settings, once=once)


@db_app.callback()
def db() -> None:
    """The metadata database of a service, which DATAPRUNER_DATABASE_URL names."""


@db_app.command()
def upgrade(
    revision: Annotated[str, typer.Argument(metavar="[REVISION]", help="What to go up to.")] = "head",
    as_json: given.Json = False,
) -> None:
    """Bring the tables to the form that this version works with. SQLite gets there by itself."""
    from datapruner.catalog import migrations

    with database() as db:
        migrations.upgrade(db, revision)
        _tell(db, as_json=as_json)


@db_app.command()
def downgrade(
    revision: Annotated[
        str, typer.Argument(metavar="REVISION", help="What to go back to: a number, -1 or base.")
    ],
    as_json: given.Json = False,
) -> None:
    """Take the tables back to an earlier form; `base` removes them and all that is in them."""
    from datapruner.catalog import migrations

    with database() as db:
        migrations.downgrade(db, revision)
        _tell(db, as_json=as_json)


@db_app.command()
def current(as_json: given.Json = False) -> None:
    """Show what form the tables have, and which one this version works with."""
    with database() as db:
        _tell(db, as_json=as_json)


@contextmanager
def database() -> Iterator[Database]:
    """The metadata database of the settings. Raises UsageError when it cannot be reached."""
    from sqlalchemy.exc import OperationalError

    from datapruner.catalog.database import Database
    from datapruner.settings import load

    db = Database(load().database)
    try:
        yield db
    except OperationalError as error:
        raise UsageError(
            f"the database cannot be reached: {error.orig}", remedy="check DATAPRUNER_DATABASE_URL"
        ) from error
    finally:
        db.close()


def _tell(db: Database, *, as_json: bool) -> None:
    from datapruner.catalog import migrations

    found, wanted = migrations.current(db), migrations.newest()
    output = Output(as_json=as_json)
    output.document({"current": found, "newest": wanted})
    output.show(f"the database is at {found or 'no revision'}; this version works with {wanted}")
