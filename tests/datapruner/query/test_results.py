"""Rows as JSON, CSV, Parquet and Arrow: every type of DuckDB, the corners of each, and names that clash."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from datapruner.errors import UsageError
from datapruner.query import results
from datapruner.query.ending import Ending
from datapruner.query.pool import SandboxPool
from datapruner.query.sandbox import QueryLimits
from datapruner.rows import row_files
from datapruner.rows.formats import ANSWERS, FILES, AnswerFormat, suffixes
from datapruner.rows.writable import Rows
from tests.waiting import PATIENCE


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    with SandboxPool(2, 1) as pool:
        yield pool


def refuse(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


def written(pool: SandboxPool, sql: str, kind: AnswerFormat, **limits: Any) -> bytes:
    given = QueryLimits(**limits)
    return pool.write(sql, {}, None, given, kind, tables={}, ending=Ending()).content


def as_json(pool: SandboxPool, sql: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(written(pool, sql, "json"), parse_constant=refuse)
    return found


VALUES = [
    ("9007199254740991::BIGINT", 9007199254740991),
    ("(-9223372036854775808)::BIGINT", -9223372036854775808),
    ("18446744073709551615::UBIGINT", 18446744073709551615),
    ("sum(5::BIGINT)", 5),  # a HUGEINT, which Arrow has as a decimal
    ("170141183460469231731687303715884105727::HUGEINT", 170141183460469231731687303715884105727),
    ("340282366920938463463374607431768211455::UHUGEINT", "340282366920938463463374607431768211455"),
    ("1234567890123456789012345678901234567890::BIGNUM", "1234567890123456789012345678901234567890"),
    ("1.50::DECIMAL(5, 2)", 1.5),
    ("0.1::FLOAT", 0.1),
    ("0.1::FLOAT = 0.1::FLOAT", True),
    ("'nan'::DOUBLE", "NaN"),
    ("'-inf'::FLOAT", "-Infinity"),
    ("['inf'::DOUBLE, NULL, 1]", ["Infinity", None, 1.0]),
    ("DATE '2026-01-02'", "2026-01-02"),
    ("TIMESTAMP '2026-01-02 03:04:05.5'", "2026-01-02T03:04:05.500000"),
    ("TIMESTAMPTZ '2026-01-02 03:04:05+02'", "2026-01-02T01:04:05.000000Z"),
    ("TIME '03:04:05'", "03:04:05.000000"),
    ("TIME '24:00:00'", "24:00:00.000000"),
    ("['12:00:00+05:30'::TIMETZ]", ["12:00:00+05:30"]),
    ("'infinity'::DATE", "infinity"),
    ("'-infinity'::TIMESTAMPTZ", "-infinity"),
    ("INTERVAL '14 months -3 days 2.5 seconds'", "P14M-3DT2.5S"),
    ("INTERVAL '-0.5 seconds'", "P0M0DT-0.5S"),
    ("'\\x00\\xFFab'::BLOB", "AP9hYg=="),
    ("{'a': 1, 'b': [{'c': NULL}]}", {"a": 1, "b": [{"c": None}]}),
    ("NULL::STRUCT(a INT)", None),
    ("MAP {'k': 1, 'l': NULL}", [{"key": "k", "value": 1}, {"key": "l", "value": None}]),
    ("[[1, 2], NULL, []]::INT[][]", [[1, 2], None, []]),
    ("[1, NULL]::INT[2]", [1, None]),
    ("'happy'::ENUM('happy', 'sad')", "happy"),
    ("'{\"a\": NaN}'", '{"a": NaN}'),
    ("'00000000-0000-0000-0000-000000000001'::UUID", "00000000-0000-0000-0000-000000000001"),
    ("union_value(n := 7)", 7),
    ("'00101'::BIT", "00101"),
    ("{'a b': MAP {'k': '1'::BIT}, c: (1, '0'::BIT)}",
     {"a b": [{"key": "k", "value": "1"}], "c": {"element1": 1, "element2": "0"}}),
    ("union_value(x := '1'::BIT)::UNION(y INT, x BIT)", "1"),
    ("['1'::BIT]::BIT[1]", ["1"]),
    ("'POINT(1 2)'::GEOMETRY", "POINT (1 2)"),
    ("{'x': [1, NULL]}::VARIANT", '{"x":[1,null]}'),
    ("chr(0) || '\"\\' || chr(10) || '🦆'", '\0"\\\n🦆'),
    ("NULL", None),
]  # fmt: skip


def test_values_of_every_kind_become_json_that_keeps_them(pool: SandboxPool) -> None:
    columns = ", ".join(f"{sql} AS c{number}" for number, (sql, _) in enumerate(VALUES))
    [row] = as_json(pool, f"SELECT {columns}")["rows"]
    assert row == [value for _, value in VALUES]


def test_every_type_that_duckdb_has_can_be_written_as_json_csv_and_arrow(pool: SandboxPool) -> None:
    sql = "FROM test_all_types()"
    document = as_json(pool, sql)
    assert [len(row) for row in document["rows"]] == [len(document["columns"])] * 3
    assert {"name": "timestamp_tz", "type": "TIMESTAMP WITH TIME ZONE"} in document["columns"]
    table = pyarrow.csv.read_csv(io.BytesIO(written(pool, sql, "csv")))
    assert (table.num_rows, table.num_columns) == (3, len(document["columns"]))
    schema = pa.ipc.open_stream(written(pool, sql, "arrow")).schema
    assert schema.names == [column["name"] for column in document["columns"]]
    assert json.loads(schema.metadata[b"types"]) == [column["type"] for column in document["columns"]]


def test_a_time_with_a_zone_that_nothing_has_asked_for_yet_is_written(pool: SandboxPool) -> None:
    """Zones are read from files, and the process that writes may open none."""
    sql = "SELECT '2026-07-02 03:04:05+00'::TIMESTAMPTZ_NS AS t, ['2026-07-02 03:04:05+00'::TIMESTAMPTZ] AS l"
    assert as_json(pool, sql)["rows"] == [["2026-07-02T03:04:05.000000000Z", ["2026-07-02T03:04:05.000000Z"]]]


def test_the_document_says_whether_rows_are_missing(pool: SandboxPool) -> None:
    document = as_json(pool, "SELECT 1 AS x WHERE false")
    assert document.pop("seconds") > 0
    assert document == {"columns": [{"name": "x", "type": "INTEGER"}], "rows": [], "truncated": False}
    assert written(pool, "SELECT 1 AS x WHERE false", "csv") == b'"x"\n'
    assert json.loads(written(pool, "FROM range(9)", "json", rows=8))["truncated"] is True


@pytest.mark.parametrize("count", [1, 1024, 1025, 5000])
def test_rows_of_any_number_are_one_array_and_one_csv(count: int, pool: SandboxPool) -> None:
    sql = f"SELECT range AS n FROM range({count})"
    assert as_json(pool, sql)["rows"] == [[n] for n in range(count)]
    assert written(pool, sql, "csv").decode().split("\n") == ['"n"', *map(str, range(count)), ""]


def test_csv_quotes_text_and_leaves_null_empty(pool: SandboxPool) -> None:
    sql = """
        SELECT 1 AS n, 'x"y' AS t, NULL::INT AS none, '' AS empty, [1, NULL]::INT[] AS l, {'a': 'b'} AS s,
               DATE '2026-01-02' AS d, true AS yes, '=1+1' AS formula, 1.50 AS price, 'nan'::FLOAT AS f
    """
    assert written(pool, sql, "csv").decode() == (
        '"n","t","none","empty","l","s","d","yes","formula","price","f"\n'
        '1,"x""y",,"","[1,null]","{""a"":""b""}","2026-01-02",true,"=1+1",1.50,"NaN"\n'
    )


def test_parquet_holds_the_same_rows(pool: SandboxPool) -> None:
    sql = "SELECT range AS n, [range] AS l FROM range(10)"
    table = pq.read_table(io.BytesIO(written(pool, sql, "parquet")))
    assert table.to_pylist() == pool.run(sql, {}).table.to_pylist()


def test_an_answer_is_what_is_written_of_its_rows_elsewhere(pool: SandboxPool, tmp_path: Path) -> None:
    sql = 'SELECT * EXCLUDE (interval, timestamp_tz_ns, empty_struct, "union") FROM test_all_types()'
    found = pool.run(sql, {})
    for kind in ANSWERS:
        file = io.BytesIO()
        results.write_to(file, found, kind)
        answer = written(pool, sql, kind)
        assert rows_in(file.getvalue(), kind) == rows_in(answer, kind)
    for suffix, kind in suffixes(FILES).items():
        path = tmp_path / f"rows{suffix}"
        assert row_files.write(path, Rows.of(found.table, "rows")) == 3
        assert rows_in(path.read_bytes(), kind) == rows_in(written(pool, sql, kind), kind)


def rows_in(document: bytes, kind: AnswerFormat) -> bytes:
    """The document without what differs from one statement to the next; that of columns as JSON lines."""
    if kind == "json":
        return re.sub(rb'"seconds":[0-9.e-]+', b"", document, count=1)
    if kind in ("csv", "jsonl"):
        return document
    read = (
        pq.read_table(io.BytesIO(document)) if kind == "parquet" else pa.ipc.open_stream(document).read_all()
    )
    return b"\n".join(Rows.of(read, "rows").lines())


@pytest.mark.parametrize("kind", ANSWERS)
def test_columns_of_the_same_name_get_a_number(kind: AnswerFormat, pool: SandboxPool) -> None:
    document = written(pool, "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a", kind)
    names = {
        "json": lambda: [column["name"] for column in json.loads(document)["columns"]],
        "jsonl": lambda: list(json.loads(document)),
        "csv": lambda: document.decode().splitlines()[0].replace('"', "").split(","),
        "parquet": lambda: pq.read_table(io.BytesIO(document)).column_names,
        "arrow": lambda: pa.ipc.open_stream(document).schema.names,
    }[kind]()
    assert names == ["a", "a_1", "a_1_1", "a_2"]


@pytest.mark.parametrize(
    "names",
    [
        ["a"] * 50_000,
        [f"a_{number}" for number in range(1, 25_000)] + ["a"] * 25_000,
        ["a", "a_1", "a_1_1"] * 16_000,
    ],
)
def test_telling_fifty_thousand_names_apart_takes_no_time(names: list[str]) -> None:
    begin = time.process_time()
    found = results.apart(names)
    assert time.process_time() - begin < PATIENCE  # each with each would be minutes
    assert len(set(found)) == len(names)


def test_a_type_that_parquet_lacks_is_named(pool: SandboxPool) -> None:
    with pytest.raises(UsageError, match=r"cannot be written as parquet: .*interval.*VARCHAR"):
        written(pool, "SELECT INTERVAL 1 DAY AS gap", "parquet")


# A statement says how long its answer is, too


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_columns_beyond_the_limit_are_refused_whatever_their_names(
    kind: AnswerFormat, pool: SandboxPool
) -> None:
    with pytest.raises(UsageError, match=r"gives 20,000 columns, the most is 4,096"):
        written(pool, f"SELECT {', '.join(['1'] * 20_000)}", kind)
    assert written(pool, f"SELECT {', '.join(['1'] * 4_096)}", kind)


def test_text_that_grows_as_json_is_cut_off_where_it_is_written(pool: SandboxPool) -> None:
    """A name stands once in Arrow and once for each value in JSON: 40 GB here."""
    sql = f"SELECT [{{'{'x' * 40_000}': i}} FOR i IN range(1000)] AS l FROM range(1000)"
    with pytest.raises(UsageError, match=r"longer than 32 MiB as json"):
        written(pool, sql, "json", bytes=8 << 20)
    assert len(written(pool, sql, "parquet", bytes=8 << 20)) < 8 << 20


def test_writing_counts_against_the_time_of_the_statement(pool: SandboxPool) -> None:
    """The rows are there in a moment; millions of decimals as text take many seconds."""
    sql = "SELECT [0::DECIMAL(38, 10) FOR i IN range(800)] AS l FROM range(10000)"
    with pytest.raises(UsageError, match=r"longer than 0\.3 s"):
        written(pool, sql, "json", seconds=0.3, bytes=256 << 20)
    assert as_json(pool, "SELECT 1 AS x")["rows"] == [[1]]
