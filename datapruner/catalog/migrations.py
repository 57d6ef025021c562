"""Bring the metadata database to the form that this version of datapruner works with.

Notable choices:
- SQLite is upgraded by whoever opens it first, under a file lock; PostgreSQL, which several hosts share, only
  by `datapruner db upgrade`, and everybody else refuses to work until that was done;
- an upgrade is one transaction on both, so that one that breaks off leaves nothing half done;
- the steps are found next to the installed package: no alembic.ini is needed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from filelock import FileLock
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from datapruner.catalog.database import Database
from datapruner.errors import UsageError

SCRIPTS = Path(__file__).resolve().parents[2] / "migrations"
_UPGRADE_LOCK = 0x6D696772  # any number that nothing else locks


def upgrade(database: str | Database, revision: str = "head") -> None:
    """Bring the database, a URL or an open one, up to `revision`. Raises UsageError when it is unknown."""
    _move(command.upgrade, database, revision)


def downgrade(database: str | Database, revision: str) -> None:
    """Take the database back to `revision`; `base` removes every table, `-1` goes back one step.

    Raises UsageError when `revision` is unknown.
    """
    _move(command.downgrade, database, revision)


def current(database: str | Database) -> str | None:
    """The revision that the database is at; None when it has no tables yet."""
    with _opened(database) as db, db.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def newest() -> str | None:
    """The revision that this version of datapruner works with."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def ensure_current(db: Database) -> None:
    """Upgrade a SQLite database that is behind; raise UsageError for a PostgreSQL that is."""
    if db.is_sqlite:
        upgrade(db)
        return
    with db.read() as session:
        check(session, newest())


def check(session: Session, wanted: str | None) -> None:
    """Raise UsageError unless the database is at the revision `wanted`, which is what `newest` gives."""
    context = MigrationContext.configure(session.connection())
    found = context.get_current_revision()
    if found != wanted:
        raise UsageError(
            f"the database is at {found or 'no revision'}, this version of datapruner works with {wanted}",
            remedy="run `datapruner db upgrade`, or the version of datapruner that it was upgraded for",
        )


@contextlib.contextmanager
def transaction(database: str | Database) -> Iterator[Connection]:
    """A transaction in which nobody else changes tables. What is done in it is done whole or not at all."""
    with _opened(database) as db, _alone(db), db.engine.connect() as plain:
        connection = plain.execution_options(immediate=True)
        if not db.is_sqlite:
            with connection.begin():
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
                yield connection
            return
        # A table written anew is dropped on the way, which must not take along the rows that refer to it.
        # SQLite lets this be switched between transactions only.
        driver: Any = connection.connection.dbapi_connection
        driver.execute("PRAGMA foreign_keys=OFF")
        try:
            with connection.begin():
                yield connection
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                assert not broken, broken
        finally:
            driver.execute("PRAGMA foreign_keys=ON")


def _move(step: Any, database: str | Database, revision: str) -> None:
    config = _config()
    with transaction(database) as connection:
        config.attributes["connection"] = connection
        try:
            step(config, revision)
        except (CommandError, RevisionError) as error:
            raise UsageError(
                f"the database cannot be brought to {revision}: {error}",
                remedy="it may be of a newer datapruner; this one knows revisions up to " + str(newest()),
            ) from error


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    return config


@contextlib.contextmanager
def _opened(database: str | Database) -> Iterator[Database]:
    if isinstance(database, Database):
        yield database
        return
    db = Database(database)
    try:
        yield db
    finally:
        db.close()


def _alone(db: Database) -> contextlib.AbstractContextManager[Any]:
    """SQLite's file to ourselves: two that create it at once would stumble over its journal mode."""
    file = db.engine.url.database
    if not db.is_sqlite or not file or file == ":memory:":
        return contextlib.nullcontext()
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f"{path.name}.lock"))
