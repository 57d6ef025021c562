"""Every way out of the sandbox that we could think of."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pytest

from datapruner.errors import UsageError
from datapruner.query import child
from datapruner.query.nursery import Nursery
from datapruner.query.sandbox import Query, QueryLimits, ask

LIMITS = QueryLimits(threads=1, memory_bytes=128 << 20)
SECRET = "do-not-read-this"


# What is tried against it. {folder} holds the attached run.duckdb, a second database, and files to read.

NOT_A_SELECT = """
    COPY sample_scores TO '{folder}/run.duckdb'
    COPY FROM DATABASE "attached 0" TO memory
    INSERT INTO sample_scores VALUES ('x', 1, 1)
    UPDATE "attached 0".sample_scores SET score = 0
    DELETE FROM "attached 0".sample_scores
    DROP TABLE "attached 0".sample_scores
    CREATE TABLE "attached 0".extra AS SELECT 1
    CREATE TABLE extra AS SELECT 1
    CREATE MACRO f() AS TABLE FROM read_text('/etc/passwd')
    CREATE SECRET (TYPE s3, KEY_ID 'x')
    ATTACH '{folder}/run.duckdb' AS again
    DETACH "attached 0"
    USE "attached 0"
    INSTALL httpfs
    PRAGMA database_list
    PRAGMA enable_profiling
    SET lock_configuration = false
    SET disabled_filesystems = ''
    SET GLOBAL max_execution_time = 0
    RESET max_memory
    SET VARIABLE x = 1
    CALL checkpoint()
    CALL enable_logging()
    CHECKPOINT
    VACUUM
    ANALYZE
    BEGIN
    EXPORT DATABASE '{folder}/export'
    IMPORT DATABASE '{folder}/export'
    PREPARE p AS COPY (SELECT 1) TO '{folder}/out.csv'
    EXECUTE p
    EXPLAIN ANALYZE SELECT 1
    PIVOT sample_scores ON part USING count(*)
"""

REFUSED = """
    COPY (SELECT 1) TO '{folder}/out.csv'
    WITH a AS (COPY (SELECT 1) TO '{folder}/out.csv') SELECT 1
    WITH a AS (COPY (SELECT 1) TO '{folder}/run.duckdb') SELECT 1
    WITH a AS (COPY (SELECT 1) TO 'attached://0') SELECT 1
    WITH a AS (COPY (SELECT 1) TO 'attached://1') SELECT 1
    WITH a AS (COPY (SELECT 1) TO 'attached://1' (FORMAT parquet, USE_TMP_FILE false)) SELECT 1
    WITH a AS (COPY (SELECT 1) TO 'attached://1' (APPEND true, USE_TMP_FILE false)) SELECT 1
    WITH a AS (COPY (SELECT 1) TO 'attached://tmp_1') SELECT 1
    WITH a AS (COPY (SELECT 1) TO 'attached://1' (PARTITION_BY (x))) SELECT 1
    FROM read_parquet('{folder}/tokens.parquet')
    FROM read_parquet('attached://*')
    FROM read_parquet('attached://../{folder}/tokens.parquet')
    FROM read_parquet(['attached://1', 'attached://0'])
    FROM read_parquet(['attached://1', '{folder}/tokens.parquet'])
    FROM read_text('attached://1/../../{folder}/secret.csv')
    FROM read_text('spill://{folder}/secret.csv')
    WITH a AS (COPY (SELECT 1) TO 'spill://statement/out.csv') SELECT 1
    WITH a AS (COPY (SELECT 1) TO 'attached://0.wal') SELECT 1
    WITH a AS (COPY (SELECT 1) TO '/dev/stdout') SELECT 1
    WITH a AS MATERIALIZED (COPY (SELECT 1) TO 'out.csv') FROM sample_scores
    FROM (WITH a AS (COPY (SELECT 1) TO 'attached://0') SELECT 1)
    WITH a AS (INSERT INTO "attached 0".sample_scores VALUES ('x', 1, 1) RETURNING *) FROM a
    WITH a AS (UPDATE "attached 0".sample_scores SET score = 0 RETURNING *) FROM a
    WITH a AS (DELETE FROM "attached 0".sample_scores RETURNING *) FROM a
    WITH a AS (INSERT INTO sample_scores VALUES ('x', 1, 1) RETURNING *) FROM a
    WITH a AS (DROP TABLE "attached 0".sample_scores) SELECT 1
    WITH a AS (ATTACH '{folder}/other.duckdb') SELECT 1
    ATTACH '{folder}/other.duckdb'
    LOAD '{folder}/evil.duckdb_extension'
    SET enable_external_access = true
    FROM read_csv('{folder}/secret.csv')
    FROM read_csv_auto(['{folder}/secret.csv'])
    FROM read_text('{folder}/secret.csv')
    FROM read_blob('{folder}/*')
    FROM read_json('{folder}/secret.csv')
    FROM read_parquet('{folder}/secret.parquet')
    FROM parquet_metadata('{folder}/secret.parquet')
    FROM read_duckdb('{folder}/other.duckdb')
    FROM read_duckdb('attached://0', table_name := 'sample_scores')
    FROM sniff_csv('{folder}/secret.csv')
    FROM glob('{folder}/*')
    FROM glob('attached://*')
    FROM '{folder}/secret.csv'
    FROM "{folder}/secret.csv"
    FROM '{folder}/other.duckdb'
    FROM 'secret.csv'
    FROM 'attached://0'
    FROM read_text('/proc/self/environ')
    FROM read_text('/proc/self/fd/0')
    FROM read_blob('/proc/self/mem')
    FROM read_text('/proc/1/environ')
    FROM read_text('{folder}/link')
    FROM read_text('file://{folder}/secret.csv')
    FROM read_text('file:{folder}/secret.csv')
    FROM read_text('ATTACHED://0')
    FROM read_csv('attached://0')
    FROM read_text('gzip://{folder}/secret.csv')
    FROM read_json_objects('{folder}/secret.csv')
    FROM read_ndjson('{folder}/secret.csv')
    FROM parquet_schema('{folder}/secret.parquet')
    FROM parquet_kv_metadata('{folder}/secret.parquet')
    FROM sqlite_scan('{folder}/other.duckdb', 'sample_scores')
    FROM postgres_scan('host=localhost', 'public', 'x')
    FROM iceberg_scan('{folder}')
    FROM delta_scan('{folder}')
    FROM st_read('{folder}/secret.csv')
    FROM read_xlsx('{folder}/secret.csv')
    FROM "attached 1".sample_scores
    FROM load_aws_credentials()
    FROM read_text('/dev/stdin')
    FROM query('FROM read_text(''{folder}/secret.csv'')')
    FROM query('COPY (SELECT 1) TO ''{folder}/out.csv''')
    FROM query('SELECT 1; DROP VIEW sample_scores')
    FROM query_table('{folder}/secret.csv')
    FROM json_execute_serialized_sql(json_serialize_sql('FROM read_text(''{folder}/secret.csv'')'))
    SELECT * FROM sample_scores WHERE id IN (SELECT content FROM read_text('{folder}/secret.csv'))
    FROM read_csv('https://example.com/x.csv')
    FROM 'https://example.com/x.parquet'
    FROM read_parquet('s3://bucket/x.parquet')
    FROM 'hf://datasets/org/name/x.parquet'
    SELECT getenv('HOME')
    FROM enable_logging(storage := 'file', storage_path := '{folder}/log')
    FROM enable_profiling(save_location := '{folder}/profile')
    FROM duckdb_extensions()
    FROM duckdb_extension_repositories()
    FROM request
    FROM connection
    FROM pandas_scan()
    FROM arrow_scan()
    FROM python_arrow_scan()
    FROM python_map_function((SELECT 1))
    SELECT\u00a01；DROP VIEW sample_scores
    ＣＯＰＹ (SELECT 1) TO '{folder}/out.csv'
    /* SELECT */ COPY (SELECT 1) TO '{folder}/out.csv' -- SELECT 1
    SELECT 1; COPY (SELECT 1) TO '{folder}/out.csv'
    SELECT $$;$$; COPY (SELECT 1) TO '{folder}/out.csv'
"""


def lines(text: str) -> list[str]:
    return [line.strip(" ") for line in text.strip("\n ").split("\n")]


HARMLESS = """
    FROM duckdb_databases()
    FROM duckdb_settings()
    FROM pragma_database_size()
    FROM duckdb_secrets()
    FROM duckdb_tables()
    FROM duckdb_functions() WHERE function_name ILIKE '%env%' OR function_name ILIKE '%file%'
    FROM duckdb_keywords()
    FROM duckdb_memory()
    FROM pragma_storage_info('"attached 0".sample_scores')
    FROM pragma_user_agent()
    FROM sqlite_master
    SELECT getvariable('HOME'), current_setting('extension_directory')
    SELECT parse_path('{folder}')[1] = '/' AS parsed
    FROM duckdb_logs()
    FROM duckdb_views()
    FROM duckdb_temporary_files()
    FROM duckdb_external_file_cache()
    FROM duckdb_variables()
    FROM which_secret('s3://bucket', 's3')
    FROM read_blob('attached://0')
    FROM read_blob('spill://statement/*')
    FROM read_text('spill://statement/../{folder}/secret.csv')
    FROM checkpoint('attached 0')
    FROM force_checkpoint('attached 0')
    SHOW DATABASES
    SHOW ALL TABLES
    SELECT current_setting('allowed_paths'), current_setting('home_directory')
    SELECT current_setting('secret_directory'), current_setting('temp_directory')
    SELECT current_query(), current_user, current_database(), version(), write_log('x')
"""


def probe(sql: str, folder: Path, nursery: Nursery) -> pa.Table:
    """What the statement shows; fails if any file in the folder has changed."""
    (folder / "secret.csv").write_text(f"a,b\n1,{SECRET}\n")
    before = contents(folder)
    statement = sql.replace("{folder}", str(folder))
    try:
        with contextlib.closing(nursery.start()) as process:
            files = [folder / "run.duckdb", folder / "tokens.parquet"]
            return ask(process, Query.of(statement, {"": files}, {}, None, LIMITS)).result().table
    finally:
        assert contents(folder) == before


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.iterdir()) if path.exists())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def parser() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@pytest.fixture
def folder(run: Path, tmp_path: Path) -> Path:
    for name in ("run.duckdb", "other.duckdb"):
        shutil.copy(run, tmp_path / name)
    (tmp_path / "link").symlink_to("secret.csv")
    pl.DataFrame({"x": [1, 2]}).write_parquet(tmp_path / "tokens.parquet")
    return tmp_path


@pytest.mark.parametrize("sql", lines(NOT_A_SELECT))
def test_no_other_statement_than_a_select_gets_as_far_as_a_plan(
    sql: str, parser: duckdb.DuckDBPyConnection
) -> None:
    with pytest.raises(child.RefusedError, match=r"only SELECT can be run"):
        child.one_select(parser, sql)


@pytest.mark.parametrize("sql", lines(REFUSED))
def test_an_attempt_to_get_out_is_refused(sql: str, folder: Path, nursery: Nursery) -> None:
    with pytest.raises(UsageError) as caught:
        probe(sql, folder, nursery)
    assert SECRET not in caught.value.message
    assert "longer than" not in caught.value.message


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEC 1", r"syntax error"),
        ("SELECT ?", r"Values were not provided"),
        ("-- only a comment", r"got 0 statements"),
        ("SELECT 1; SELECT 2", r"got 2 statements"),
        ("SELECT 1; /* ; */ DROP VIEW sample_scores --", r"got 2 statements"),
        ("EXPLAIN SELECT 1", r"only SELECT can be run, got EXPLAIN"),
        ("SELECT '\ud800'", r"extract_statements"),
        ("SELECT " + "1+" * 10_000 + "1", r"Max expression depth limit"),
        ("FROM range(1) " + "JOIN (FROM range(1)" * 2000 + ") ON true" * 2000, r"\w"),
    ],
)
def test_the_message_says_what_is_wrong(sql: str, message: str, folder: Path, nursery: Nursery) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        probe(sql, folder, nursery)
    assert caught.value.field == "sql"


@pytest.mark.parametrize("sql", lines(HARMLESS))
def test_what_is_allowed_shows_nothing_of_the_machine(sql: str, folder: Path, nursery: Nursery) -> None:
    shown = str(probe(sql, folder, nursery).to_pylist())
    for hidden in (SECRET, str(folder), str(Path.home()), sys.prefix, os.environ["PATH"]):
        assert hidden not in shown
    assert not re.search(r"'/\w+", shown)  # an absolute path of any kind


def test_the_bytes_of_an_attached_file_cannot_be_read_past_duckdb(folder: Path, nursery: Nursery) -> None:
    assert probe("FROM read_blob('attached://0')", folder, nursery).num_rows == 0


def test_chance_is_not_shared_between_queries(folder: Path, nursery: Nursery) -> None:
    values = {probe("SELECT random() || uuid() AS x", folder, nursery)["x"][0].as_py() for _ in range(3)}
    assert len(values) == 3
