"""SQL over what a project has published: which files a statement may see, and what their columns mean.

Notable choices:
- a file is mounted only when the statement's text names its schema: attaching costs milliseconds a file, and
  a project may have thousands; `datapruner/catalog/mounts.py` says which schemas there are;
- any word of the text counts, in any case, quoted or in a comment: to mount too much is only slower, and
  everything that can be named is the caller's own;
- a statement that lists (SHOW, DESCRIBE, information_schema, ...) sees the first datasets too;
- `runs` and `datasets` come from the catalog as of now, and are sent only when named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import structlog

from datapruner.catalog import mounts
from datapruner.catalog.database import Database
from datapruner.errors import InputError, NotFoundError, StorageError, UsageError, WorkerError
from datapruner.query.ending import EndedError, Ending
from datapruner.query.pool import SandboxPool
from datapruner.query.sandbox import Document, Parameters, QueryLimits
from datapruner.rows.formats import AnswerFormat
from datapruner.schemas.sql import DocumentedColumn, SqlRequest, SqlSchema, SqlTable
from datapruner.service.instance import Service
from datapruner.service.sql_columns import CATALOG_TABLES, descriptions
from datapruner.service.storage import Storage
from datapruner.service.tokens import Caller
from datapruner.settings import Settings

#: Schemas that one statement may name, and datasets that a listing shows.
MOST_NAMED, MOST_LISTED = 100, 50

T = TypeVar("T")
_log = structlog.get_logger(__name__)
_WORD = re.compile(r"[a-z_][a-z0-9_]*")
_LISTING = re.compile(
    r"information_schema|show|desc|describe|summarize|duckdb_\w+|pg_\w+|pragma_\w+|sqlite_\w+"
)
_COLUMNS = """
SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns()
WHERE database_name = 'memory' AND NOT internal ORDER BY schema_name, table_name, column_index
"""
_SCHEMA_LIMITS = QueryLimits(rows=200_000)


def limits(settings: Settings, max_rows: int | None = None) -> QueryLimits:
    """What a statement may use: the settings, and at most `max_rows` rows."""
    return QueryLimits(
        rows=min(settings.sql_rows, max_rows or settings.sql_rows),
        bytes=settings.sql_bytes,
        seconds=settings.sql_seconds,
        memory_bytes=settings.sql_memory_bytes,
        spill_bytes=settings.sql_spill_bytes,
    )


class Statement:
    """One SELECT of a caller, which can be ended by another thread than the one in which it runs."""

    def __init__(self, service: Service, caller: Caller, wanted: SqlRequest, kind: AnswerFormat) -> None:
        most = limits(service.settings, wanted.max_rows)
        ask = ProjectSql(service.db, service.storage, service.sql, caller.project_id)
        self._ending = Ending()
        self._run = partial(ask.run, wanted.sql, wanted.parameters, most, kind, self._ending)

    def run(self) -> Document | None:
        """Its rows; None when it was ended before they were there. Raises as `ProjectSql.run`."""
        try:
            return self._run()
        except EndedError:
            return None

    def end(self) -> None:
        """End it, whether it waits for its turn, is at work, or has not begun."""
        self._ending.end()


def describe(service: Service, caller: Caller, schema: str | None = None) -> SqlSchema:
    """What a caller can read, as `ProjectSql.describe`."""
    return ProjectSql(service.db, service.storage, service.sql, caller.project_id).describe(schema)


class ProjectSql:
    """SQL for one project."""

    def __init__(self, db: Database, storage: Storage, pool: SandboxPool, project_id: str) -> None:
        self._db = db
        self._storage = storage
        self._pool = pool
        self._project_id = project_id

    def run(
        self, sql: str, parameters: Parameters, limits: QueryLimits, kind: AnswerFormat, ending: Ending
    ) -> Document:
        """The rows of one SELECT, written in a format.

        Raises UsageError (it is wrong, or too much), BusyError (too many at the same time), StorageError (a
        file cannot be fetched or opened), WorkerError, EndedError.
        """
        words = set(_WORD.findall(sql.lower()))
        lists = any(map(_LISTING.fullmatch, words))
        with self._db.read() as session:
            keys = mounts.named(session, self._project_id, words)
            if len(keys) > MOST_NAMED:
                raise UsageError(
                    f"the statement names {len(keys)} schemas, at most {MOST_NAMED} can be read at once",
                    remedy="pass names that are only values as parameters",
                    field="sql",
                )
            if lists or not (keys or words & CATALOG_TABLES.keys()):
                keys = mounts.first(session, self._project_id, MOST_LISTED) | keys
        databases, tables = self._files(keys), self._tables(words, all_of_them=lists)
        return _asked(
            lambda: self._pool.write(sql, databases, parameters, limits, kind, tables=tables, ending=ending)
        )

    def describe(self, schema: str | None = None) -> SqlSchema:
        """What can be read: the catalog's tables and the first datasets, or one schema.

        Raises NotFoundError when there is no such schema, and as `run`.
        """
        with self._db.read() as session:
            if schema is None:
                keys = mounts.first(session, self._project_id, MOST_LISTED)
            else:
                keys = mounts.named(session, self._project_id, {schema.lower()})
                if not keys:
                    raise NotFoundError(
                        f"there is no schema {schema}",
                        remedy="the table `datasets` lists them",
                        field="schema",
                    )
        empty = {name: table.empty() for name, table in CATALOG_TABLES.items()} if schema is None else {}
        files = self._files(keys)
        found = _asked(lambda: self._pool.run(_COLUMNS, files, limits=_SCHEMA_LIMITS, tables=empty))
        types: dict[tuple[str, str], dict[str, str]] = {}
        for column in found.table.to_pylist():
            table = column["schema_name"], column["table_name"]
            types.setdefault(table, {})[column["column_name"]] = column["data_type"]
        return SqlSchema(
            tables=[
                SqlTable(schema_name=schema_name, table=table, columns=_documented(table, of_table))
                for (schema_name, table), of_table in types.items()
            ]
        )

    def _tables(self, words: set[str], *, all_of_them: bool) -> dict[str, pa.Table]:
        """The catalog's tables that the statement may mean."""
        tables = {}
        with self._db.read() as session:
            for name, table in CATALOG_TABLES.items():
                if name in words:
                    tables[name] = table.of(session, self._project_id)
                elif all_of_them:
                    tables[name] = table.empty()
        return tables

    def _files(self, keys: mounts.Keys) -> dict[str, Sequence[Path]]:
        """The files of each schema, here. Raises StorageError."""
        return {name: [self._storage.local(key) for key in of_schema] for name, of_schema in keys.items()}


def _documented(table: str, types: Mapping[str, str]) -> list[DocumentedColumn]:
    texts = descriptions(table, types.keys())
    return [DocumentedColumn(name=name, type=kind, description=texts[name]) for name, kind in types.items()]


def _asked(ask: Callable[[], T]) -> T:
    """What the pool answers. Raises StorageError and WorkerError without a path or what a process said."""
    try:
        try:
            return ask()
        except WorkerError as error:  # a statement only reads: asking twice does no harm
            _log.warning("an SQL process failed; asking another", error=error.message)
            return ask()
    except InputError as error:  # its message has the path of the file
        raise StorageError(
            "a file that the statement reads cannot be opened", remedy="try again; the logs say which"
        ) from error
    except WorkerError as error:
        _log.warning("an SQL process failed", error=error.message)
        raise WorkerError("the SQL process failed", remedy="try again; the logs say why") from error
