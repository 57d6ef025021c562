"""Query processes kept ready: used once, replaced, isolated, bounded in number, gone with their parent."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import duckdb
import psutil  # type: ignore[import-untyped]
import pyarrow as pa
import pytest

from datapruner.errors import BusyError, UsageError
from datapruner.query import child
from datapruner.query.ending import EndedError, Ending
from datapruner.query.nursery import Nursery
from datapruner.query.pool import SandboxPool
from datapruner.query.results import QueryResult
from datapruner.query.sandbox import Document, QueryLimits, run_sql
from tests.waiting import PATIENCE, has_ended, until

SHORT = QueryLimits(seconds=0.3, memory_bytes=64 << 20, threads=1)


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    with SandboxPool(2, 2) as pool:
        yield pool


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A corpus and a run, in a word."""
    folder = tmp_path_factory.mktemp("published")
    made = []
    for table in ("samples", "sample_scores"):
        made.append(folder / f"{table}.duckdb")
        with duckdb.connect(str(made[-1])) as connection:
            connection.execute(f"CREATE TABLE {table} AS SELECT range AS row FROM range(10)")
    return made


def nurseries(parent: int | None = None) -> list[psutil.Process]:
    """The processes of `child.py` that a process has started."""
    found = []
    for each in psutil.Process(parent).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.__file__ in " ".join(each.cmdline()):
                found.append(each)
    return found


def children(parent: int | None = None) -> set[psutil.Process]:
    """Query processes that wait or work, of all pools."""
    found: set[psutil.Process] = set()
    for nursery in nurseries(parent):
        with contextlib.suppress(psutil.NoSuchProcess):
            found.update(nursery.children())
    return found


@contextlib.contextmanager
def pool_of(
    size: int, concurrent: int, **options: float
) -> Iterator[tuple[SandboxPool, set[psutil.Process]]]:
    """Another pool, once it is full, and its processes."""
    before = children()
    with SandboxPool(size, concurrent, **options) as pool:
        until(lambda: len(children() - before) == size)
        yield pool, children() - before


def asked(pool: SandboxPool, executor: ThreadPoolExecutor, sql: str, ending: Ending) -> Future[Document]:
    """A statement that may take ten minutes, in another thread."""
    limits = QueryLimits(seconds=600)
    return executor.submit(pool.write, sql, {}, None, limits, "json", tables={}, ending=ending)


@contextlib.contextmanager
def busy(pool: SandboxPool, executor: ThreadPoolExecutor) -> Iterator[None]:
    """One statement is at work while the block runs."""
    ending = Ending()
    working = asked(pool, executor, "SELECT sleep_ms(600000)", ending)
    until(lambda: pool._running == 1)
    try:
        yield
    finally:
        ending.end()
    with pytest.raises(EndedError):
        working.result(PATIENCE)


def test_every_statement_has_a_process_of_its_own_and_another_takes_its_place() -> None:
    with pool_of(2, 1) as (pool, first):
        elsewhere = children() - first
        assert pool.run("SELECT 1 AS x", {}).table.to_pylist() == [{"x": 1}]
        until(lambda: len(children() - elsewhere) == 2 and len(first & children()) == 1)


def test_a_burst_larger_than_the_pool_is_answered(pool: SandboxPool) -> None:
    with ThreadPoolExecutor(5) as executor:
        results = list(executor.map(lambda n: pool.run("SELECT ?::INT AS n", {}, [n]).table, range(5)))
    assert [table["n"].to_pylist() for table in results] == [[n] for n in range(5)]


def test_several_files_share_a_schema_and_inline_tables_are_in_the_default_one(
    pool: SandboxPool, files: list[Path]
) -> None:
    inline = {"runs": pa.table({"id": ["run_1"], "row": [3]}), "alpaca": pa.table({"x": ["a table"]})}
    sql = """
        SELECT r.id, s.row, x FROM alpaca.samples s JOIN alpaca.sample_scores USING (row)
        JOIN runs r USING (row) CROSS JOIN alpaca
    """
    result = pool.run(sql, {"alpaca": files}, tables=inline)
    assert result.table.to_pylist() == [{"id": "run_1", "row": 3, "x": "a table"}]
    assert result.types == ["VARCHAR", "BIGINT", "VARCHAR"]
    assert result.table.schema.metadata is None


def test_an_inline_table_and_a_schema_may_have_the_same_name(pool: SandboxPool, files: list[Path]) -> None:
    sql = "SELECT (SELECT count(*) FROM runs) AS mine, (SELECT count(*) FROM runs.samples) AS theirs"
    result = pool.run(sql, {"runs": files}, tables={"runs": pa.table({"id": ["run_1"]})})
    assert result.table.to_pylist() == [{"mine": 1, "theirs": 10}]


def test_an_inline_table_that_nobody_can_name_is_refused(pool: SandboxPool) -> None:
    with pytest.raises(UsageError, match="cannot be a schema or table"):
        pool.run("SELECT 1", {}, tables={'x"; DROP': pa.table({"x": [1]})})


def test_parameters_have_a_size_limit(pool: SandboxPool) -> None:
    with pytest.raises(UsageError, match="longer than 4 MiB"):
        pool.run("SELECT ?", {}, ["x" * (4 << 20)])


def test_limits_are_of_the_statement_not_of_the_pool(pool: SandboxPool) -> None:
    setting = "SELECT current_setting('max_memory') AS memory, current_setting('threads') AS threads"
    limits = QueryLimits(memory_bytes=96 << 20, threads=3)
    assert pool.run(setting, {}, limits=limits).table.to_pylist() == [{"memory": "96.0 MiB", "threads": 3}]


# How many at the same time


def test_who_waits_too_long_for_a_place_is_turned_away() -> None:
    with SandboxPool(0, 1, wait_seconds=0.2) as pool, ThreadPoolExecutor(1) as executor:
        with (
            busy(pool, executor),
            pytest.raises(BusyError, match="1 SQL statements are at work already"),
        ):
            pool.run("SELECT 1", {})
        assert pool.run("SELECT 1", {}).table.num_rows == 1


def test_who_came_first_is_served_first() -> None:
    waiting: list[Future[QueryResult]] = []
    with SandboxPool(0, 1, wait_seconds=600) as pool, ThreadPoolExecutor(5) as executor:
        with busy(pool, executor):
            for number in range(4):
                waiting.append(executor.submit(pool.run, "SELECT epoch_us(now()) AS served", {}))
                until(lambda number=number: len(pool._waiting) == number + 1)
        served = [future.result().table["served"][0].as_py() for future in waiting]
    assert served == sorted(set(served))


def test_who_finds_too_many_waiting_is_turned_away_at_once() -> None:
    with SandboxPool(0, 1, wait_seconds=600) as pool, ThreadPoolExecutor(5) as executor:
        with busy(pool, executor):
            waiting = [executor.submit(pool.run, "SELECT 1", {}) for _ in range(4)]
            until(lambda: len(pool._waiting) == 4)
            begin = time.monotonic()
            with pytest.raises(BusyError):
                pool.run("SELECT 1", {})
            assert time.monotonic() - begin < PATIENCE
        assert [future.result().table.num_rows for future in waiting] == [1] * 4


# Statements that nobody waits for any more


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sleep_ms(600000)",
        "SELECT levenshtein(repeat('a', 3000000), repeat('b', 3000000))",  # heeds no interrupt
    ],
)
def test_a_statement_at_work_that_is_ended_gives_its_process_and_its_place_back(sql: str) -> None:
    ending = Ending()
    with pool_of(1, 1) as (pool, (process,)), ThreadPoolExecutor(1) as executor:
        working = asked(pool, executor, sql, ending)
        until(lambda: pool._running == 1)
        ending.end()
        with pytest.raises(EndedError):
            working.result(PATIENCE)
        until(lambda: has_ended(process.pid))
        assert pool.run("SELECT 1", {}).table.num_rows == 1


def test_a_statement_that_waits_for_its_turn_leaves_the_queue_when_it_is_ended() -> None:
    first, second = Ending(), Ending()
    with SandboxPool(0, 1, wait_seconds=600) as pool, ThreadPoolExecutor(3) as executor:
        working = asked(pool, executor, "SELECT sleep_ms(600000)", first)
        until(lambda: pool._running == 1)
        waiting = asked(pool, executor, "SELECT 2", second)
        until(lambda: len(pool._waiting) == 1)
        behind = executor.submit(pool.run, "SELECT 3 AS x", {})
        until(lambda: len(pool._waiting) == 2)
        second.end()
        with pytest.raises(EndedError):
            waiting.result(PATIENCE)
        first.end()
        with pytest.raises(EndedError):
            working.result(PATIENCE)
        assert behind.result(PATIENCE).table.to_pylist() == [{"x": 3}]


def test_a_statement_that_was_ended_before_it_began_is_not_begun() -> None:
    ending = Ending()
    ending.end()
    with SandboxPool(0, 1) as pool, ThreadPoolExecutor(1) as executor:
        with pytest.raises(EndedError):
            asked(pool, executor, "SELECT sleep_ms(600000)", ending).result(PATIENCE)
        assert pool._running == 0


# What they get, and when they end


def pipes_alone(process: psutil.Process) -> list[str]:
    """The pipes that a process has open, if it has nothing else open that leads out of it; [] otherwise."""
    try:
        found = [str(each.readlink()) for each in Path(f"/proc/{process.pid}/fd").iterdir()]
    except FileNotFoundError:  # it was closed just now
        return []
    others = [each for each in found if not each.startswith(("pipe:", "anon_inode:"))]
    return [] if others else [each for each in found if each.startswith("pipe:")]


def test_processes_get_neither_files_nor_the_environment_of_the_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATAPRUNER_SECRET", "do-not-inherit")
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        with pool_of(2, 1) as (_, (first, second)):
            process = max(first, second, key=lambda each: each.pid)  # it could have what the other was given
            assert set(process.environ()) <= {"TZ", "LC_ALL", "ARROW_DEFAULT_MEMORY_POOL", "MALLOC_ARENA_MAX"}
            until(lambda: len(pipes_alone(process)) == 3)  # a moment after its birth, and before any query
            assert process.open_files() == []
            assert process.cwd() == "/"


def test_a_process_that_was_killed_while_it_waited_is_not_used() -> None:
    with pool_of(1, 1) as (pool, (process,)):
        process.kill()
        until(lambda: not psutil.pid_exists(process.pid))  # the nursery knows, whose pipes it had at first
        assert pool.run("SELECT 1", {}).table.num_rows == 1


def test_a_nursery_that_was_killed_is_replaced() -> None:
    known = set(nurseries())
    with pool_of(1, 1) as (pool, (process,)):
        [nursery] = set(nurseries()) - known
        nursery.kill()
        until(lambda: has_ended(nursery.pid))
        assert pool.run("SELECT 1", {}).table.num_rows == 1
        until(lambda: has_ended(process.pid))


def test_close_leaves_no_process() -> None:
    with pool_of(2, 2) as (_, waiting):
        pass
    until(lambda: all(has_ended(process.pid) for process in waiting))


SERVICE = """
import sys, threading, time
from pathlib import Path
from datapruner.query.pool import SandboxPool
from datapruner.query.sandbox import QueryLimits
pool = SandboxPool(1, 3)
limits = QueryLimits(seconds=600, threads=1)
for sql in (
    "SELECT sleep_ms(600000)",
    "SELECT levenshtein(repeat('a', 3000000), repeat('b', 3000000))",
    "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range % 7 = b.range % 3",
):
    threading.Thread(target=pool.run, args=(sql, {}, None, limits), daemon=True).start()
time.sleep(600)
"""


def test_idle_and_busy_processes_die_with_a_service_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", SERVICE], cwd=Path(__file__).parents[3]) as service:
        try:
            until(lambda: len(children(service.pid)) == 4)
            found = [*children(service.pid), *nurseries(service.pid)]
            until(lambda: sum(process.cpu_times().user > 0.2 for process in children(service.pid)) >= 2)
        finally:
            os.kill(service.pid, signal.SIGKILL)
    until(lambda: all(has_ended(process.pid) for process in found))


# After each of these the files are as they were, and the pool answers.


@pytest.mark.parametrize(
    "sql",
    [
        "WITH a AS (COPY (SELECT 1) TO '{file}') SELECT 1",
        "WITH a AS (COPY (SELECT 1) TO 'attached://0') FROM a",
        'SELECT 1; DROP TABLE "attached 0".samples',
        "FROM read_blob('{file}')",
        "FROM read_text('/proc/self/environ')",
        "FROM read_text('/proc/self/fd/0')",
        "SELECT printf('%2000000000d', 1)",  # allocates past DuckDB's accounts
        "SELECT levenshtein(repeat('a', 300000), repeat('b', 300000))",  # heeds no interrupt
        "WITH RECURSIVE t AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM t) SELECT count(*) FROM t",
        "SELECT json_transform('1', repeat('[', 100000) || '\"INT\"' || repeat(']', 100000))",  # SIGSEGV
    ],
)
def test_a_hostile_statement_harms_neither_files_nor_pool(
    sql: str, pool: SandboxPool, files: list[Path]
) -> None:
    before = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    with pytest.raises(UsageError) as caught:
        pool.run(sql.replace("{file}", str(files[0])), {"alpaca": files}, limits=SHORT)
    assert str(files[0].parent) not in caught.value.message.replace(sql, "")
    assert [hashlib.sha256(file.read_bytes()).hexdigest() for file in files] == before
    assert pool.run("SELECT count(*) AS n FROM alpaca.samples", {"alpaca": files}).table["n"].to_pylist() == [
        10
    ]


def test_a_billion_rows_are_cut_at_the_limit(pool: SandboxPool) -> None:
    result = pool.run("FROM range(1000000000)", {}, limits=QueryLimits(rows=100))
    assert (result.table.num_rows, result.truncated) == (100, True)


def test_a_statement_that_brings_duckdb_down_is_the_statements_fault() -> None:
    sql = "SELECT json_transform('1', repeat('[', 100000) || '\"INT\"' || repeat(']', 100000))"
    with pytest.raises(UsageError, match=r"brought its process down \(SIG"):
        run_sql(sql, {})


def test_types_that_arrow_cannot_carry_are_an_error_of_the_statement(pool: SandboxPool) -> None:
    with pytest.raises(UsageError, match="Recursion level"):
        pool.run(f"SELECT {'[' * 100}1{']' * 100}", {})


def test_pools_may_be_used_from_many_threads(pool: SandboxPool) -> None:
    found: list[int] = []

    def ask() -> None:
        found.append(pool.run("SELECT 42 AS x", {}).table["x"][0].as_py())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [42] * 4


@pytest.mark.slow
def test_children_that_end_at_the_same_time_do_not_disturb_the_others() -> None:
    with Nursery() as nursery:
        staying = nursery.start()
        process = nursery._process
        assert process is not None
        until(staying.is_alive)
        [first] = children_of(process.pid, 1)
        for _ in range(10):
            ending = [nursery.start() for _ in range(12)]
            for doomed in children_of(process.pid, 13):  # not one by one, as the nursery would
                if doomed != first:
                    doomed.kill()
            assert [each.exit_code(30) for each in ending] == [-signal.SIGKILL] * len(ending)
            for each in ending:
                each.close()
        assert nursery._process is process
        assert staying.is_alive()
        staying.close()


def children_of(pid: int, count: int) -> list[psutil.Process]:
    """The children of a process, once there are so many."""
    parent = psutil.Process(pid)
    until(lambda: len(parent.children()) == count)
    found: list[psutil.Process] = parent.children()
    return found
