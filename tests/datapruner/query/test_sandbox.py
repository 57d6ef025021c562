"""User SQL: what works, what is cut or stopped, and every way out of the sandbox that we could think of."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import psutil  # type: ignore[import-untyped]
import pyarrow as pa
import pytest

from datapruner.errors import InputError, UsageError, WorkerError
from datapruner.query import child
from datapruner.query.nursery import Nursery
from datapruner.query.sandbox import Query, QueryLimits, ask, run_sql
from tests.waiting import PATIENCE, until

CHILD = Path(child.__file__)
LIMITS = QueryLimits(threads=1, memory_bytes=128 << 20)
SECRET = "do-not-read-this"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's DuckDB file: two tables, and a view over one of them."""
    path = tmp_path_factory.mktemp("published") / "run.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "CREATE TABLE sample_scores AS"
            " SELECT 's' || range AS id, range / 2 AS score, range % 3 AS part FROM range(6000)"
        )
        connection.execute("CREATE TABLE token_lists AS SELECT 's1' AS id, [1.5::FLOAT, 2.5] AS nll")
        connection.execute("CREATE VIEW token_scores AS SELECT id, unnest(nll) AS nll FROM token_lists")
    return path


def rows(sql: str, run: Path, **options: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run_sql(sql, {"": run}, **options).table.to_pylist()
    return found


# What works


def test_tables_are_in_the_default_schema_and_results_are_arrow(run: Path) -> None:
    result = run_sql("SELECT part, count(*) AS n FROM sample_scores GROUP BY part ORDER BY part", {"": run})
    assert result.table.to_pydict() == {"part": [0, 1, 2], "n": [2000, 2000, 2000]}
    assert not result.truncated
    assert result.seconds > 0


def test_window_functions_over_a_named_schema_joined_with_a_view(run: Path) -> None:
    sql = """
        SELECT s.id, t.nll, row_number() OVER (ORDER BY t.nll DESC) AS place
        FROM corpus.sample_scores AS s JOIN token_scores AS t USING (id) ORDER BY place
    """
    assert run_sql(sql, {"": run, "corpus": run}).table.to_pylist() == [
        {"id": "s1", "nll": 2.5, "place": 1},
        {"id": "s1", "nll": 1.5, "place": 2},
    ]


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT id FROM sample_scores WHERE part = ? AND score > ?", [1, 2998.0]),
        ("SELECT id FROM sample_scores WHERE part = $p AND score > $s", {"p": 1, "s": 2998.0}),
    ],
)
def test_parameters_are_filled_by_place_and_by_name(run: Path, sql: str, parameters: Any) -> None:
    assert rows(sql, run, parameters=parameters) == [{"id": "s5998"}]


def test_show_and_describe_list_what_there_is(run: Path) -> None:
    assert [row["name"] for row in rows("SHOW TABLES", run)] == [
        "sample_scores",
        "token_lists",
        "token_scores",
    ]
    assert [row["column_name"] for row in rows("DESCRIBE token_scores", run)] == ["id", "nll"]


def test_times_are_in_utc_whatever_the_machine_says(run: Path) -> None:
    assert rows("SELECT current_setting('TimeZone') AS zone", run)[0]["zone"] in ("UTC", "Etc/UTC")


def test_an_empty_result_keeps_its_columns(run: Path) -> None:
    result = run_sql("SELECT id, score FROM sample_scores WHERE false", {"": run})
    assert result.table.column_names == ["id", "score"]
    assert (result.table.num_rows, result.truncated) == (0, False)


# What is cut


def test_rows_over_the_limit_are_cut_and_an_endless_result_is_not_waited_for() -> None:
    result = run_sql("FROM range(1000000000000)", {}, limits=QueryLimits(rows=3000))
    assert (result.table.num_rows, result.truncated) == (3000, True)


def test_exactly_as_many_rows_as_allowed_are_not_truncated() -> None:
    result = run_sql("FROM range(4096)", {}, limits=QueryLimits(rows=4096))
    assert (result.table.num_rows, result.truncated) == (4096, False)


def test_bytes_over_the_limit_are_cut_at_a_row() -> None:
    result = run_sql("SELECT repeat('x', 1000) AS x FROM range(500)", {}, limits=QueryLimits(bytes=100_000))
    assert (result.table.num_rows, result.truncated) == (99, True)  # 1,000 bytes and an offset a row
    assert result.table.nbytes <= 100_000


def test_a_first_row_over_the_byte_limit_leaves_no_rows() -> None:
    result = run_sql("SELECT repeat('x', 1000) AS x", {}, limits=QueryLimits(bytes=500))
    assert (result.table.num_rows, result.truncated) == (0, True)


# What is stopped


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range % 7 = b.range % 3",
        "SELECT levenshtein(repeat('a', 3000000), repeat('b', 3000000))",  # heeds no interrupt
        "SELECT sleep_ms(600000)",
    ],
)
def test_a_query_that_takes_too_long_is_stopped(sql: str) -> None:
    begin, before = time.monotonic(), set(psutil.Process().children())
    with pytest.raises(UsageError, match=r"longer than 0.3 s"):
        run_sql(sql, {}, limits=QueryLimits(seconds=0.3, threads=1))
    assert time.monotonic() - begin < PATIENCE
    assert set(psutil.Process().children()) <= before  # without the nursery, and whoever it did not wait for


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT repeat('x', 1000000000)",
        "SELECT list(range) FROM range(1000000000)",
        "SELECT string_agg(repeat('x', 1000)) FROM range(10000000)",
        "FROM generate_series(1, 100000000000) ORDER BY random()",
        "SELECT repeat('x', 1000000) FROM range(1000000000)",  # met only while rows are read
        "SELECT "
        + "(" * 100_000
        + "1"
        + ")" * 100_000,  # the parser, which DuckDB's own limit does not cover
    ],
)
def test_a_query_that_needs_too_much_memory_is_stopped(sql: str) -> None:
    with pytest.raises(UsageError, match=r"needs more than 64 MiB of memory"):
        run_sql(sql, {}, limits=QueryLimits(memory_bytes=64 << 20, threads=1))


def test_a_process_killed_from_outside_is_no_fault_of_the_query() -> None:
    before = set(psutil.Process().children())

    def children() -> list[psutil.Process]:
        """Of the nursery that was started since; other tests' servers may start processes, too."""
        found = []
        for each in set(psutil.Process().children()) - before:
            with contextlib.suppress(psutil.NoSuchProcess):
                if str(CHILD) in each.cmdline():
                    found += each.children()
        return found

    def kill_the_child() -> None:
        until(children)[0].kill()

    killer = threading.Thread(target=kill_the_child)
    killer.start()
    with pytest.raises(WorkerError, match=r"ended with status -9"):
        run_sql("SELECT sleep_ms(600000)", {}, limits=QueryLimits(seconds=600))
    killer.join()


def test_how_a_process_ended_is_waited_for_where_nobody_has_time_to_say_so() -> None:
    sql = "SELECT json_transform('1', repeat('[', 100000) || '\"INT\"' || repeat(']', 100000))"  # SIGSEGV
    with Nursery() as nursery, contextlib.closing(nursery.start()) as process:
        teller = nursery._process
        assert teller is not None
        until(psutil.Process(teller.pid).children)
        teller.send_signal(signal.SIGSTOP)
        threading.Timer(2.5, teller.send_signal, (signal.SIGCONT,)).start()
        with pytest.raises(UsageError, match=r"brought its process down \(SIG"):
            ask(process, Query.of(sql, {}, {}, None, LIMITS))


# What is said


@pytest.mark.parametrize(
    ("sql", "message"),
    [("SELECT nothing FROM sample_scores", r'"nothing" not found'), ("", r"got 0 statements")],
)
def test_bad_sql_gets_a_message_and_a_remedy(run: Path, sql: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        run_sql(sql, {"": run})
    assert caught.value.remedy


def test_parameters_must_be_json_values(run: Path) -> None:
    with pytest.raises(UsageError, match=r"query parameters: Object of type bytes"):
        run_sql("SELECT ?", {"": run}, parameters=[b"x"])


@pytest.mark.parametrize("name", ["main", "Temp", "a b", 'x"; DROP'])
def test_a_schema_needs_a_plain_name_of_its_own(run: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be a schema or table"):
        run_sql("SELECT 1", {name: run})


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_limits_are_numbers_above_zero(seconds: float) -> None:
    with pytest.raises(UsageError, match=r"query limit seconds"):
        QueryLimits(seconds=seconds)


def test_files_that_cannot_be_read_are_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.duckdb: cannot be read"):
        run_sql("SELECT 1", {"": tmp_path / "missing.duckdb"})
    (tmp_path / "text.duckdb").write_text("no database")
    with pytest.raises(InputError, match=r"text\.duckdb: cannot be read as a DuckDB file"):
        run_sql("SELECT 1", {"": run, "other": tmp_path / "text.duckdb"})


def test_a_file_with_unfinished_writes_is_refused(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "open.duckdb"
    shutil.copy(run, path)
    (tmp_path / "open.duckdb.wal").write_bytes(b"")
    with pytest.raises(InputError, match=r"open\.duckdb\.wal: the database was not closed"):
        run_sql("SELECT 1", {"": path})


def test_a_child_that_is_never_needed_ends_quietly(nursery: Nursery) -> None:
    with contextlib.closing(nursery.start()) as process:
        process.input.close()
        assert process.exit_code(20) == 0
        assert (process.output.read(), process.errors.read()) == (b"", b"")


def test_query_processes_load_nothing_heavy() -> None:
    command = [sys.executable, "-I", "-X", "importtime", str(CHILD)]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        ours.close()
        ended = subprocess.run(command, stdin=theirs.fileno(), capture_output=True, text=True, check=True)
    loaded = {line.rsplit("|", 1)[-1].strip() for line in ended.stderr.splitlines()}
    assert {"duckdb", "pyarrow", "fsspec"} <= loaded
    packages = {name.split(".")[0] for name in loaded if "." in name}
    assert not {"numpy", "pandas", "polars", "pydantic", "torch", "transformers"} & packages


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
    FROM checkpoint('attached 0')
    FROM force_checkpoint('attached 0')
    SHOW DATABASES
    SHOW ALL TABLES
    SELECT current_setting('allowed_paths'), current_setting('home_directory')
    SELECT current_setting('secret_directory'), current_setting('temp_directory')
    SELECT current_query(), current_user, current_database(), version(), write_log('x')
"""


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


def probe(sql: str, folder: Path, nursery: Nursery) -> pa.Table:
    """What the statement shows; fails if any file in the folder has changed."""
    (folder / "secret.csv").write_text(f"a,b\n1,{SECRET}\n")
    before = contents(folder)
    statement = sql.replace("{folder}", str(folder))
    try:
        with contextlib.closing(nursery.start()) as process:
            return (
                ask(process, Query.of(statement, {"": folder / "run.duckdb"}, {}, None, LIMITS))
                .result()
                .table
            )
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
