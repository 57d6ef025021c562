"""SQL over a real socket: rows in four formats, limits, what is refused, and the documented schema."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from api.routes.sql import while_wanted
from tests.served import Server, serving
from tests.waiting import PATIENCE

ROWS = [{"instruction": f"Say {word}.", "output": f"{word}!"} for word in ("one", "two", "three")]


@pytest.fixture(scope="module")
def server(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with small limits, and the dataset `words`."""
    home = tmp_path_factory.mktemp("service") / "home"
    small = {
        "sql_warm": 2,
        "sql_concurrent": 2,
        "sql_rows": 50,
        "sql_seconds": 10,
        "sql_memory_bytes": 128 << 20,
    }
    with serving(home, tiny_folder, **small) as server:
        started = server.client.post("/v1/datasets", json={"name": "words", "rows": ROWS})
        assert started.status_code == 202, started.text
        assert server.wait(started.headers["Location"])["state"] == "succeeded"
        yield server


@pytest.fixture(scope="module")
def analyst(server: Server) -> Iterator[httpx.Client]:
    """Has the scope sql and no other."""
    with server.as_token(server.new_token("sql")) as client:
        yield client


def ask(client: httpx.Client, sql: str, accept: str = "*/*", **more: Any) -> httpx.Response:
    return client.post("/v1/sql", json={"sql": sql} | more, headers={"Accept": accept})


def rows(client: httpx.Client, sql: str, **more: Any) -> list[list[Any]]:
    answer = ask(client, sql, **more)
    assert answer.status_code == 200, answer.text
    found: list[list[Any]] = answer.json()["rows"]
    return found


def test_rows_come_with_their_columns_and_whether_there_are_more(analyst: httpx.Client) -> None:
    answer = ask(analyst, "SELECT row, content FROM words.turns WHERE role = 'assistant' ORDER BY row")
    document = answer.json()
    assert document["columns"] == [{"name": "row", "type": "BIGINT"}, {"name": "content", "type": "VARCHAR"}]
    assert document["rows"] == [[0, "one!"], [1, "two!"], [2, "three!"]]
    assert document["truncated"] is False
    assert answer.headers["Datapruner-Truncated"] == "false"
    assert float(answer.headers["Datapruner-Seconds"]) == pytest.approx(document["seconds"], abs=1e-6)


def test_rows_beyond_the_services_limit_or_the_callers_are_cut(analyst: httpx.Client) -> None:
    for more, count in (({}, 50), ({"max_rows": 7}, 7), ({"max_rows": 1000}, 50)):
        answer = ask(analyst, "FROM range(1000000000)", **more)
        assert len(answer.json()["rows"]) == count
        assert answer.json()["truncated"] is True
        assert answer.headers["Datapruner-Truncated"] == "true"


def test_parameters_by_place_and_by_name(analyst: httpx.Client) -> None:
    assert rows(analyst, "SELECT content FROM words.turns WHERE content = ?", parameters=["two!"]) == [
        ["two!"]
    ]
    assert rows(analyst, "SELECT $a || $b", parameters={"a": "x'; DROP", "b": "y"}) == [["x'; DROPy"]]


def test_arrow_parquet_and_csv_by_format_or_by_accept(analyst: httpx.Client) -> None:
    sql = "SELECT row, n_turns FROM words.samples ORDER BY row"
    expected = [{"row": row, "n_turns": 2} for row in range(3)]
    types = {
        "arrow": "application/vnd.apache.arrow.stream",
        "parquet": "application/vnd.apache.parquet",
        "csv": "text/csv",
    }
    readers = {
        "arrow": lambda body: pa.ipc.open_stream(body).read_all().to_pylist(),
        "parquet": lambda body: pq.read_table(io.BytesIO(body)).to_pylist(),
        "csv": lambda body: [
            {name: int(value) for name, value in row.items()}
            for row in csv.DictReader(io.StringIO(body.decode()))
        ],
    }
    for kind, media_type in types.items():
        for answer in (ask(analyst, sql, format=kind), ask(analyst, sql, accept=f"{media_type}, */*;q=0.1")):
            assert answer.headers["Content-Type"].split(";")[0] == media_type
            assert readers[kind](answer.content) == expected
            assert answer.headers["Datapruner-Truncated"] == "false"
    assert ask(analyst, sql, accept="image/png").status_code == 406


def test_json_stays_valid_where_values_have_no_place_in_it(analyst: httpx.Client) -> None:
    sql = (
        "SELECT 'nan'::FLOAT, 'inf'::DOUBLE, 9007199254740993, DATE '2026-01-02', [1.5, NULL], '\\xFF'::BLOB"
    )

    def refuse(name: str) -> Any:
        raise AssertionError(name)

    document = json.loads(ask(analyst, sql).content, parse_constant=refuse)
    assert document["rows"] == [["NaN", "Infinity", 9007199254740993, "2026-01-02", [1.5, None], "/w=="]]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT nothing FROM words.samples", '"nothing" not found'),
        ("SELEC 1", "syntax error"),
        ("SELECT 1; SELECT 2", "got 2 statements"),
        ("ATTACH '/etc/passwd' AS x", "can be run"),
        ("INSTALL httpfs", "can be run"),
        ("SET lock_configuration = false", "can be run"),
        ("PRAGMA database_list", "can be run"),
        ("EXPORT DATABASE '/tmp/x'", "can be run"),
        ("CALL pragma_version()", "can be run"),
        ("COPY words.samples TO '/tmp/x'", "can be run"),
        ("WITH x AS (COPY (SELECT 1) TO '/tmp/x') FROM x", ""),
        ("FROM read_text('/etc/passwd')", ""),
        ("FROM glob('/**')", ""),
        ("SELECT getenv('DATAPRUNER_SECRET')", "getenv"),
        ("FROM read_parquet('s3://bucket/x.parquet')", ""),
        ("SELECT \ud800", ""),
        ("SELECT INTERVAL 1 DAY", ""),
        ("SELECT sleep_ms(600000)", "longer than 10 s"),
        ("SELECT printf('%2000000000d', 1)", "128 MiB of memory"),
        ("SELECT json_transform('1', repeat('[', 100000) || '\"INT\"' || repeat(']', 100000))", "brought"),
    ],
)
def test_a_statement_that_cannot_be_run_is_the_callers_problem(
    sql: str, said: str, analyst: httpx.Client
) -> None:
    body = json.dumps({"sql": sql, "format": "parquet"})
    answer = analyst.post("/v1/sql", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["type"] == "/problems/invalid-request"
    assert said in problem["detail"]
    assert problem["remedy"]
    assert rows(analyst, "SELECT count(*) FROM words.samples") == [[3]]


def test_nothing_of_the_machine_can_be_seen(server: Server, analyst: httpx.Client) -> None:
    for sql in (
        "FROM duckdb_databases()",
        "FROM duckdb_settings()",
        "SHOW DATABASES",
        "FROM duckdb_secrets()",
    ):
        shown = ask(analyst, f"{sql} -- words").text
        assert str(server.home) not in shown
        assert "projects/" not in shown


def test_requests_that_say_nothing_sensible_are_refused(analyst: httpx.Client) -> None:
    for body in ({}, {"sql": ""}, {"sql": "SELECT 1", "rows": 1}, {"sql": "SELECT 1", "max_rows": 0}):
        assert analyst.post("/v1/sql", json=body).status_code == 422
    deep = '{"sql": "SELECT ?", "parameters": ' + "[" * 100_000 + "]" * 100_000 + "}"
    answer = analyst.post("/v1/sql", content=deep, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500
    nested: list[Any] = []
    for _ in range(300):
        nested = [nested]
    assert ask(analyst, "SELECT 1 WHERE ? IS NULL", parameters=[nested]).status_code in (200, 422)
    assert ask(analyst, "SELECT ?", parameters=[10**400]).status_code in (200, 422)


def test_the_scope_sql_is_needed_and_another_project_sees_nothing(server: Server) -> None:
    with server.as_token(server.new_token("read", "write")) as reader:
        assert ask(reader, "SELECT 1").status_code == 403
        assert reader.get("/v1/sql/schema").status_code == 403
    with server.as_token(server.new_token("sql", project="others")) as other:
        assert ask(other, "FROM words.samples").status_code == 422
        assert rows(other, "FROM datasets") == []
        assert other.get("/v1/sql/schema", params={"schema": "words"}).status_code == 404
    with server.as_token(None) as nobody:
        assert ask(nobody, "SELECT 1").status_code == 401


def test_the_schema_explains_every_column(analyst: httpx.Client) -> None:
    tables = analyst.get("/v1/sql/schema").json()["tables"]
    assert {table["schema_name"] for table in tables} == {"main", "words"}
    assert all(column["description"] for table in tables for column in table["columns"])
    [samples] = [table for table in tables if table["table"] == "samples"]
    assert samples["columns"][0]["name"] == "row"
    only = analyst.get("/v1/sql/schema", params={"schema": "words_v1"}).json()["tables"]
    assert {table["schema_name"] for table in only} == {"words_v1"}


def test_many_at_the_same_time_are_answered_or_told_to_come_again(analyst: httpx.Client) -> None:
    with ThreadPoolExecutor(16) as executor:
        answers = list(executor.map(lambda _: ask(analyst, "SELECT sleep_ms(100)"), range(16)))
    assert {answer.status_code for answer in answers} <= {200, 429}
    assert [answer.status_code for answer in answers].count(200) >= 2
    assert rows(analyst, "SELECT count(*) FROM words.samples") == [[3]]


@pytest.mark.parametrize("why", ["the client went away", "the service stops"])
def test_a_statement_that_nobody_waits_for_any_more_is_ended(why: str) -> None:
    begun, ended = threading.Event(), threading.Event()

    def run() -> None:
        begun.set()
        ended.wait(PATIENCE)

    async def receive() -> Message:
        if why == "the service stops":
            await asyncio.Event().wait()
        await asyncio.to_thread(begun.wait)
        return {"type": "http.disconnect"}

    async def ask() -> None:
        asking = asyncio.create_task(while_wanted(Request({"type": "http"}, receive), run, ended.set))
        await asyncio.to_thread(begun.wait)
        if why == "the service stops":
            asking.cancel()
        await asking

    with pytest.raises((ClientDisconnect, asyncio.CancelledError)):
        asyncio.run(ask())
    assert ended.is_set()
