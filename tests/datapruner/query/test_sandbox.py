"""User SQL: what works, what is cut or stopped, and what is said of it."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import polars as pl
import psutil  # type: ignore[import-untyped]
import pytest

from datapruner.errors import InputError, UsageError, WorkerError
from datapruner.query import child
from datapruner.query.nursery import Nursery, begun
from datapruner.query.sandbox import Query, QueryLimits, ask, run_sql
from datapruner.rows.formats import ANSWERS, AnswerFormat
from tests.waiting import PATIENCE, until

CHILD = Path(child.__file__)
LIMITS = QueryLimits(threads=1, memory_bytes=128 << 20)
SECRET = "do-not-read-this"


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


def test_a_parquet_file_is_a_table_beside_those_of_a_database(run: Path, tmp_path: Path) -> None:
    tokens = pl.DataFrame({"id": ["s5", "s5", "s7"], "place": [0, 1, 0], "likely": [True, None, False]})
    tokens.write_parquet(tmp_path / "tokens.parquet", row_group_size=2)
    sql = "SELECT id, place, likely, part FROM x.tokens JOIN x.sample_scores USING (id) ORDER BY id, place"
    found = run_sql(sql, {"x": [run, tmp_path / "tokens.parquet"]})
    assert found.table.to_pylist() == [
        {"id": "s5", "place": 0, "likely": True, "part": 2},
        {"id": "s5", "place": 1, "likely": None, "part": 2},
        {"id": "s7", "place": 0, "likely": False, "part": 1},
    ]
    assert found.types == ["VARCHAR", "BIGINT", "BOOLEAN", "BIGINT"]
    alone = run_sql("SELECT count(*) AS n FROM tokens AS a, tokens AS b", {"": tmp_path / "tokens.parquet"})
    assert alone.table.to_pylist() == [{"n": 9}]


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
    limits = QueryLimits(memory_bytes=64 << 20, spill_bytes=32 << 20, threads=1)
    with pytest.raises(UsageError, match=r"needs more than 64 MiB of memory and 32 MiB of temporary files"):
        run_sql(sql, {}, limits=limits)


SORT = """
SELECT sum(length(text) * place), max(text) FROM (
    SELECT text, row_number() OVER (ORDER BY hash(text)) AS place
    FROM (SELECT repeat(range::VARCHAR, 20) AS text FROM range(600000))
)
"""


def test_what_does_not_fit_into_memory_is_sorted_on_disk_without_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = run_sql(SORT, {}, limits=QueryLimits(memory_bytes=64 << 20, threads=1))
    plenty = run_sql(SORT, {}, limits=QueryLimits(memory_bytes=1 << 30, threads=1))
    assert found.table.equals(plenty.table)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="1 MiB of temporary files"):
        run_sql(SORT, {}, limits=QueryLimits(memory_bytes=64 << 20, spill_bytes=1 << 20, threads=1))
    assert list(tmp_path.iterdir()) == []


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
    with pytest.raises(InputError, match=r"text\.duckdb: cannot be read as a DuckDB or Parquet file"):
        run_sql("SELECT 1", {"": run, "other": tmp_path / "text.duckdb"})
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(InputError, match=r"text\.parquet: cannot be read as a DuckDB or Parquet file"):
        run_sql("SELECT 1", {"": [run, tmp_path / "text.parquet"]})


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


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_child_that_nothing_was_prepared_for_writes_what_it_is_asked_for(kind: AnswerFormat) -> None:
    with begun() as only:
        sql = "SELECT 42 AS n, TIMESTAMPTZ '2024-02-29 12:00:00Z' AS at, [{'x': 1.5::DECIMAL(3, 2)}] AS deep"
        assert ask(only, Query.of(sql, {}, {}, None, LIMITS, kind)).content


def test_a_nursery_that_still_imports_ends_at_once_when_it_is_closed() -> None:
    with begun() as only:
        process = only.nursery._process
        assert process is not None
    assert process.returncode == -signal.SIGKILL


def test_query_processes_load_nothing_heavy() -> None:
    command = [sys.executable, "-I", "-X", "importtime", str(CHILD)]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, Path(os.devnull).open("r+b") as nothing:
        for number in (b"0", b"1"):  # before the second, all that any answer takes is imported
            socket.send_fds(ours, [number], [nothing.fileno()] * 4)
        ours.close()
        ended = subprocess.run(command, stdin=theirs.fileno(), capture_output=True, text=True, check=True)
    loaded = {line.rsplit("|", 1)[-1].strip() for line in ended.stderr.splitlines()}
    assert {"duckdb", "pyarrow", "fsspec", "pyarrow.parquet"} <= loaded
    packages = {name.split(".")[0] for name in loaded if "." in name}
    assert not {"numpy", "pandas", "polars", "pydantic", "torch", "transformers"} & packages
