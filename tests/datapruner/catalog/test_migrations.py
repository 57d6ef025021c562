"""The tables' form: models and migrations agree, upgrades and downgrades work with rows in place."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import JSON, DateTime, Table, inspect, select, text
from sqlalchemy.exc import IntegrityError

from datapruner.catalog import migrations
from datapruner.catalog.database import Database
from datapruner.catalog.models import Base, Dataset, utcnow
from datapruner.errors import UsageError
from tests.command_line import Said

# A step such as may come: it changes a table that others refer to, and drops a column.
_NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade():
    with op.batch_alter_table("projects") as table:
        table.add_column(sa.Column("colour", sa.String(), nullable=False, server_default="blue"))
        table.alter_column("quota_rows", new_column_name="most_rows")


def downgrade():
    with op.batch_alter_table("projects") as table:
        table.alter_column("most_rows", new_column_name="quota_rows")
        table.drop_column("colour")
"""
_BROKEN = _NEXT.replace(
    "def downgrade", '    op.execute("INSERT INTO nothing VALUES (1)")\n\n\ndef downgrade'
)


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """An empty database of each kind, without tables."""
    db = Database(database_url)
    yield db
    db.close()


@pytest.fixture
def later_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Add a step after those that there are, as a later version of datapruner would."""

    def add(step: str) -> None:
        folder = tmp_path / "migrations"
        shutil.copytree(migrations.SCRIPTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "versions" / "0006_next.py").write_text(step, encoding="utf-8")
        monkeypatch.setattr(migrations, "SCRIPTS", folder)

    return add


def _row(table: Table) -> dict[str, Any]:
    """A row with a value in every column; what refers to another table refers to its row of this kind."""
    row: dict[str, Any] = {}
    for column in table.columns:
        kind = column.type.python_type
        if isinstance(column.type, DateTime):
            row[column.name] = utcnow()
        elif isinstance(column.type, JSON):
            row[column.name] = {"some": ["value"]}
        elif kind is str:
            owner = next((key.column.table.name for key in column.foreign_keys), table.name)
            row[column.name] = f"{owner}-{'id' if column.foreign_keys else column.name}"
        else:
            row[column.name] = kind(1)
    return row


def _fill(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    """One row in every table; the content of all tables."""
    with db.write() as session:
        for table in Base.metadata.sorted_tables:
            session.execute(table.insert().values(_row(table)))
    return _content(db)


def _content(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    with db.read() as session:
        return {
            table.name: [tuple(row) for row in session.execute(select(table))]
            for table in Base.metadata.sorted_tables
        }


def _tables(db: Database) -> set[str]:
    return set(inspect(db.engine).get_table_names()) - {"alembic_version"}


def test_models_and_migrations_agree(db: Database) -> None:
    migrations.upgrade(db)
    with db.engine.connect() as connection:
        found = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(found, Base.metadata) == []


def test_an_upgrade_leaves_the_rows_of_an_upgraded_database_alone(db: Database) -> None:
    migrations.upgrade(db)
    before = _fill(db)
    migrations.upgrade(db)
    assert _content(db) == before
    assert migrations.current(db) == migrations.newest() == "0008"


def test_a_database_with_rows_goes_down_to_nothing_and_up_again(db: Database) -> None:
    migrations.upgrade(db)
    _fill(db)
    migrations.downgrade(db, "base")
    assert _tables(db) == set()
    assert migrations.current(db) is None
    migrations.upgrade(db)
    assert _tables(db) == set(Base.metadata.tables)


def test_datasets_that_were_there_are_named_or_not_by_their_names(db: Database) -> None:
    names = {"a": True, "set_1": True, f"set_{'0' * 22}": False, f"prune_{'a9' * 11}": False}
    migrations.upgrade(db, "0004")
    with db.write() as session:
        session.execute(text("INSERT INTO projects (id, name, created_at) VALUES ('p', 'p', '2026-01-01')"))
        for name in names:
            row = "INSERT INTO datasets (id, project_id, name, next_version, created_at) VALUES "
            session.execute(text(row + "(:name, 'p', :name, 1, '2026-01-01')"), {"name": name})
    migrations.upgrade(db)
    with db.read() as session:
        assert dict(session.execute(select(Dataset.name, Dataset.named)).all()) == names


def test_a_later_step_keeps_all_rows_up_and_down(db: Database, later_version: Callable[[str], None]) -> None:
    migrations.upgrade(db)
    before = _fill(db)
    later_version(_NEXT)
    migrations.upgrade(db)
    with db.read() as session:
        assert session.execute(text("SELECT id, most_rows, colour FROM projects")).one() == (
            "projects-id",
            1,
            "blue",
        )
    migrations.downgrade(db, "-1")
    assert _content(db) == before
    assert migrations.current(db) == "0008"
    with pytest.raises(IntegrityError), db.write() as session:  # rows are checked again
        session.execute(text("DELETE FROM projects"))


def test_a_step_that_breaks_off_leaves_everything_as_it_was(
    db: Database, later_version: Callable[[str], None]
) -> None:
    migrations.upgrade(db)
    before = _fill(db)
    later_version(_BROKEN)
    with pytest.raises(Exception, match="nothing"):
        migrations.upgrade(db)
    assert migrations.current(db) == "0008"
    assert _content(db) == before


def test_a_database_of_a_newer_version_is_refused(
    db: Database, later_version: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = migrations.SCRIPTS
    later_version(_NEXT)
    migrations.upgrade(db)
    monkeypatch.setattr(migrations, "SCRIPTS", here)
    with pytest.raises(UsageError, match="0008"):
        migrations.ensure_current(db)


def test_sqlite_is_upgraded_by_whoever_opens_it(sqlite_url: str) -> None:
    db = Database(sqlite_url)
    migrations.ensure_current(db)
    assert migrations.current(db) == migrations.newest()
    db.close()


def test_postgresql_is_only_checked(postgres_url: str) -> None:
    db = Database(postgres_url)
    with pytest.raises(UsageError, match="run `datapruner db upgrade`"):
        migrations.ensure_current(db)
    assert _tables(db) == set()
    migrations.upgrade(db)
    migrations.ensure_current(db)
    db.close()


def test_processes_that_start_at_once_find_the_same_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'catalog.sqlite'}"
    code = (
        "import sys\n"
        "from datapruner.catalog import database, migrations\n"
        "sys.stdin.read()\n"
        "migrations.ensure_current(database.Database(sys.argv[1]))\n"
    )
    start = [sys.executable, "-c", code, url]
    with (
        subprocess.Popen(start, stdin=subprocess.PIPE) as one,
        subprocess.Popen(start, stdin=subprocess.PIPE) as other,
    ):
        for process in (one, other):
            assert process.stdin is not None
            process.stdin.close()
    assert (one.returncode, other.returncode) == (0, 0)
    assert migrations.current(url) == migrations.newest()


def test_the_command_line_moves_a_database_from_any_folder(
    command: Callable[..., Said],
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATAPRUNER_DATABASE_URL", postgres_url)
    newest = migrations.newest()
    assert json.loads(command("db", "current", "--json").out) == {"current": None, "newest": newest}
    assert json.loads(command("db", "upgrade", "--json").out) == {"current": newest, "newest": newest}
    assert json.loads(command("db", "downgrade", "base", "--json").out)["current"] is None
    refused = command("db", "upgrade", "no_such_revision")
    assert refused.code == 2
    assert "no_such_revision" in refused.err


def test_a_database_that_is_away_is_a_clear_error(
    command: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATAPRUNER_DATABASE_URL", "postgresql://user:secret@127.0.0.1:1/none")
    for arguments in (["current"], ["upgrade"], ["downgrade", "base"]):
        refused = command("db", *arguments)
        assert refused.code == 2
        assert "the database cannot be reached" in refused.err
        assert "secret" not in refused.err
