"""What was put in comes out again: conversations, original columns, rejects, in row order."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datapruner.corpora.corpus import Corpus
from datapruner.corpora.ingest import ingest
from datapruner.errors import InputError, UsageError
from scorers.conversations.conversation import Conversation, Turn

MOMENT = dt.datetime(2024, 5, 6, 7, 8, 9, 123456)


def published(folder: Path, source: Any) -> Corpus:
    ingest(source, out=folder / "c.duckdb")
    return Corpus(folder / "c.duckdb")


def lines(folder: Path, rows: list[str]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def table_of(corpus: Corpus, rows: list[int] | None = None, batch: int = 1024) -> pa.Table:
    return pa.Table.from_batches(corpus.originals(rows, batch))


def pairs(count: int, **columns: pa.Array) -> pa.Table:
    texts = {name: [f"{name} {i}" for i in range(count)] for name in ("instruction", "output")}
    return pa.table({**texts, **columns})


# Conversations


def test_conversations_come_in_row_order_without_duplicates_and_rejects(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i % 3}", "completion": f"c{i % 3}" if i != 1 else ""} for i in range(6)]
    with published(tmp_path, rows) as corpus:
        found = [item for batch in corpus.conversations(batch=2) for item in batch]
        ids = dict(corpus.sample_index().select("row", "sample_id").iter_rows())
    assert [(row, conversation.turns[1].content) for row, _, conversation in found] == [
        (0, "c0"),
        (2, "c2"),
        (4, "c1"),
    ]
    assert all(ids[row] == sample_id for row, sample_id, _ in found)


def test_the_index_is_in_row_order_however_its_lines_lie_in_the_file(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i % 3}", "completion": "c"} for i in range(6)]
    with published(tmp_path, rows) as corpus:
        expected = corpus.sample_index()
    assert expected["row"].to_list() == list(range(6))
    with duckdb.connect(str(tmp_path / "c.duckdb")) as connection:
        connection.execute("CREATE OR REPLACE TABLE samples AS FROM samples ORDER BY row DESC")
    with Corpus(tmp_path / "c.duckdb") as corpus:
        assert corpus.sample_index().equals(expected)


def test_chosen_rows_come_in_row_order_and_may_be_duplicates(
    tmp_path: Path,
) -> None:
    rows = [{"prompt": f"p{i % 3}", "completion": "c"} for i in range(6)]
    with published(tmp_path, rows) as corpus:
        batches = list(corpus.conversations([5, 0, 3], batch=2))
    assert [[row for row, _, _ in batch] for batch in batches] == [[0, 3], [5]]


def test_turns_tools_and_calls_survive(tmp_path: Path) -> None:
    tools = [{"name": "f", "parameters": {"x": "int"}}]
    call = {"name": "f", "arguments": {"x": 1}}
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "1"},
        {"role": "assistant", "content": "one"},
    ]
    with published(tmp_path, [{"messages": messages, "tools": tools}]) as corpus:
        [[(row, sample_id, conversation)]] = corpus.conversations()
        assert corpus.conversation(sample_id) == conversation
    assert row == 0
    assert conversation == Conversation(
        (
            Turn("system", "s"),
            Turn("user", "u"),
            Turn("assistant", "", '[{"name":"f","arguments":{"x":1}}]'),
            Turn("tool", "1"),
            Turn("assistant", "one"),
        ),
        '[{"name":"f","parameters":{"x":"int"}}]',
    )


def test_the_index_counts_turns_and_characters(tmp_path: Path) -> None:
    with published(tmp_path, [{"prompt": "äb", "completion": "cde", "system": "s"}]) as corpus:
        [entry] = corpus.sample_index().to_dicts()
        assert corpus.counts().unique == 1
    assert (entry["row"], entry["shape"], entry["n_turns"], entry["n_chars"]) == (
        0,
        "prompt-completion",
        3,
        6,
    )


def test_asking_for_what_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "completion": ""}, {"prompt": "p", "completion": "c"}]
    with published(tmp_path, rows) as corpus:
        for read in (corpus.conversations, corpus.originals, corpus.originals_json):
            with pytest.raises(UsageError, match="no sample at row 0"):
                list(read([0, 1]))
        with pytest.raises(UsageError, match="no sample nonsense"):
            corpus.conversation("nonsense")
        assert list(corpus.originals([])) == []


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
            lambda text: not text.isspace()
        ),
        min_size=1,
        max_size=20,
    )
)
def test_any_text_survives_exactly(tmp_path: Path, texts: list[str]) -> None:
    rows = [{"prompt": text, "completion": text[::-1]} for text in texts]
    with published(tmp_path, rows) as corpus:
        found = [c for batch in corpus.conversations(list(range(len(rows)))) for _, _, c in batch]
        originals = [json.loads(line) for line in corpus.originals_json()]
    assert [(c.turns[0].content, c.turns[1].content) for c in found] == [(t, t[::-1]) for t in texts]
    assert originals == rows


# Originals


TYPED = {
    "int8": pa.array([1, None], pa.int8()),
    "uint64": pa.array([2**64 - 1, None], pa.uint64()),
    "float16": pa.array([1.5, None], pa.float16()),
    "float32": pa.array([0.1, None], pa.float32()),
    "bool": pa.array([True, None]),
    "null": pa.nulls(2),
    "large_string": pa.array(["a", None], pa.large_string()),
    "binary": pa.array([b"\x00\xff", None]),
    "fixed_binary": pa.array([b"ab", None], pa.binary(2)),
    "dictionary": pa.array(["x", None]).dictionary_encode(),
    "date": pa.array([MOMENT.date(), None]),
    "seconds": pa.array([MOMENT.replace(microsecond=0), None], pa.timestamp("s")),
    "nanoseconds": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns")),
    "zoned": pa.array([MOMENT, None], pa.timestamp("us", "Europe/Paris")),
    "zoned_ns": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns", "UTC")),
    "time": pa.array([MOMENT.time(), None], pa.time64("us")),
    "time_s": pa.array([MOMENT.time().replace(microsecond=0), None], pa.time32("s")),
    "duration": pa.array([123_456_789, None], pa.duration("ns")),
    "decimal": pa.array([decimal.Decimal("1.23"), None], pa.decimal128(10, 2)),
    "wide_decimal": pa.array([decimal.Decimal("1.23"), None], pa.decimal256(50, 2)),
    "list": pa.array([[1, None], None], pa.list_(pa.int32())),
    "large_list": pa.array([[0.5], None], pa.large_list(pa.float32())),
    "fixed_list": pa.array([[1, 2], None], pa.list_(pa.int64(), 2)),
    "struct": pa.array([{"A": 1, "b": ["x"]}, None]),
    "clashing_struct": pa.array([{"A": 1, "a": 2}, None]),
    "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
    "list_of_structs": pa.array([[{"x": MOMENT}], None]),
    "map_key_twice": pa.array([[("k", 1), ("k", 2)], None], pa.map_(pa.string(), pa.int64())),
    "map_of_wide_decimals": pa.array(
        [[("k", decimal.Decimal(1))], None], pa.map_(pa.string(), pa.decimal256(50, 0))
    ),
    "nested_binary": pa.array([{"bytes": b"\x00\xff", "path": "a.png"}, None]),
    "list_of_binary": pa.array([[b"\x00", None], None]),
    "nested_duration": pa.array([[5], None], pa.list_(pa.duration("us"))),
    "nested_wide_decimal": pa.array(
        [{"d": decimal.Decimal("1.23")}, None], pa.struct([("d", pa.decimal256(50, 2))])
    ),
    "number_dictionary": pa.array([7, None]).dictionary_encode(),
    "nested_dictionary": pa.array([["a"], None]).cast(pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    "list_view": pa.array([[1], None], pa.list_view(pa.int64())),
    "large_list_view": pa.array([["x"], None], pa.large_list_view(pa.string())),
    "string_view": pa.array(["x", None], pa.string_view()),
    "binary_view": pa.array([b"x", None], pa.binary_view()),
    "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef", None], pa.binary(16))),
    "nested_uuid": pa.ListArray.from_arrays(
        pa.array([0, 1, 1], pa.int32()),
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef"], pa.binary(16))),
    ),
    "not_finite": pa.array([float("nan"), float("-inf")]),
    "nested_not_finite": pa.array([[float("nan"), 1.0], None], pa.list_(pa.float16())),
    "two_fields_of_one_name": pa.StructArray.from_arrays([pa.array([1, 2]), pa.array([3, 4])], ["a", "a"]),
    "field_without_name": pa.StructArray.from_arrays([pa.array([1, 2])], [""]),
}


@pytest.mark.parametrize("name", TYPED)
def test_a_typed_column_comes_out_with_its_type_and_values(tmp_path: Path, name: str) -> None:
    table = pairs(2, typed=TYPED[name])
    with published(tmp_path, table) as corpus:
        out = table_of(corpus)
    assert out.schema.equals(table.schema)
    assert out.equals(table) or str(out["typed"].combine_chunks()) == str(TYPED[name])


FOR_PARQUET: dict[str, tuple[pa.Array, pa.DataType, list[Any], Any]] = {
    "interval": (
        pa.array([(1, 2, 3), None], pa.month_day_nano_interval()),
        pa.struct([("months", pa.int32()), ("days", pa.int32()), ("nanoseconds", pa.int64())]),
        [{"months": 1, "days": 2, "nanoseconds": 3}, None],
        "P1M2DT0.000000003S",
    ),
    "runs": (
        pa.RunEndEncodedArray.from_arrays(pa.array([1, 2], pa.int32()), pa.array(["a", None])),
        pa.string(),
        ["a", None],
        "a",
    ),
    "no_fields": (pa.array([{}, None], pa.struct([])), pa.string(), ["{}", None], {}),
    "thousands": (
        pa.array([decimal.Decimal(12000), None], pa.decimal128(9, -3)),
        pa.string(),
        ["1.2E+4", None],
        1.2e4,
    ),
}


@pytest.mark.parametrize("name", FOR_PARQUET)
def test_what_parquet_has_no_place_for_comes_out_as_it_is_kept(tmp_path: Path, name: str) -> None:
    array, kind, values, in_json = FOR_PARQUET[name]
    with published(tmp_path, pairs(2, typed=array)) as corpus:
        out = table_of(corpus)
        first, second = (json.loads(line)["typed"] for line in corpus.originals_json())
    pq.write_table(out, tmp_path / "out.parquet")
    assert out.schema.field("typed").type == kind
    assert out["typed"].to_pylist() == values
    assert (first, second) == (in_json, None)


@pytest.mark.parametrize(
    "array",
    [
        pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]),
        pa.array([[], []], pa.list_(pa.int64(), 0)),
    ],
)
def test_a_column_that_cannot_be_kept_is_named(tmp_path: Path, array: pa.Array) -> None:
    with pytest.raises(InputError, match=r"table: column 'odd' cannot be kept: .*\(drop the column, or cast"):
        ingest(pairs(2, odd=array), out=tmp_path / "c.duckdb")


def test_names_that_sql_confuses_come_out_as_they_were(tmp_path: Path) -> None:
    names = ["row", "Row", "a", "A", 'quo"te', "", "select", "c0", "row_2"]
    table = pairs(2, **{name: pa.array([i, None]) for i, name in enumerate(names)})
    with published(tmp_path, table) as corpus:
        assert table_of(corpus).equals(table)


def test_schema_metadata_survives(tmp_path: Path) -> None:
    table = pairs(2).replace_schema_metadata({"huggingface": '{"info": {}}'})
    with published(tmp_path, table) as corpus:
        assert table_of(corpus).schema.metadata == table.schema.metadata


def test_all_batches_have_one_schema_and_follow_row_order(tmp_path: Path) -> None:
    table = pairs(50, id=pa.array(range(50), pa.int16()))
    with published(tmp_path, table) as corpus:
        batches = list(corpus.originals([40, 3, 17, 9], batch=2))
        whole = table_of(corpus, batch=7)
    assert [batch["id"].to_pylist() for batch in batches] == [[3, 9], [17, 40]]
    assert {batch.schema.to_string() for batch in batches} == {table.schema.to_string()}
    assert whole.equals(table)


def test_rejected_rows_of_a_table_leave_no_gap_in_the_originals(tmp_path: Path) -> None:
    table = pa.table({"id": [0, 1, 2], "prompt": ["a", "b", "c"], "completion": ["x", None, "z"]})
    with published(tmp_path, table) as corpus:
        assert table_of(corpus)["id"].to_pylist() == [0, 2]
        assert list(corpus.originals_json([2])) == [b'{"id":2,"prompt":"c","completion":"z"}']


def test_json_rows_come_out_verbatim(tmp_path: Path) -> None:
    rows = [
        '{"output": "b", "instruction": "a", "x": 1.0, "y": 1e2, "big": 12345678901234567890123}',
        '{"instruction":"c" ,"output":"\\u00e4\\n", "x": null}',
    ]
    with published(tmp_path, lines(tmp_path, rows)) as corpus:
        assert [line.decode() for line in corpus.originals_json()] == rows


def test_columns_derived_from_json_have_the_types_that_all_rows_share(tmp_path: Path) -> None:
    one = {"n": 1, "f": 0.5, "i": 1, "mixed": 1, "tags": ["x"], "meta": {"k": 1}, "day": "2024-01-01"}
    two = {
        "n": -2,
        "f": 2,
        "i": None,
        "mixed": "one",
        "tags": [],
        "meta": {"k": None},
        "ok": True,
        "none": None,
    }
    rows: list[dict[str, Any]] = [one, {**two, "none": None}]
    rows = [{"prompt": f"p{i}", "completion": "c", **row} for i, row in enumerate(rows)]
    with published(tmp_path, lines(tmp_path, list(map(json.dumps, rows)))) as corpus:
        out = table_of(corpus)
        assert table_of(corpus, [1]).schema == out.schema
    types = {name: str(out.schema.field(name).type) for name in out.schema.names}
    assert types["n"] == types["i"] == "int64"
    assert types["f"] == "double"
    assert types["ok"] == "bool"
    assert types["day"] == types["mixed"] == types["none"] == "string"
    assert out["n"].to_pylist() == [1, -2]
    assert out["tags"].to_pylist() == [["x"], []]
    assert out["meta"].to_pylist() == [{"k": 1}, {"k": None}]
    assert out["ok"].to_pylist() == [None, True]
    assert out.schema.names == ["prompt", "completion", *one, "ok", "none"]


def test_text_in_a_json_column_is_not_quoted_and_mixed_values_are_their_json(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "completion": "c", "v": value} for value in ("text", 5, [1], {"a": 1}, None)]
    with published(tmp_path, rows) as corpus:
        values = table_of(corpus)["v"].to_pylist()
    assert values == ['"text"', "5", "[1]", '{"a":1}', None]


def test_awkward_json_keys_and_numbers_survive_as_columns(tmp_path: Path) -> None:
    row = {
        "prompt": "p",
        "completion": "c",
        "a/b": 1,
        "a~b": 2,
        "quo'te\"d": 3,
        "A": 4,
        "a": 5,
        "row": 6,
        "$.x[0]": 7,
        "": 8,
        "huge": 2**64 - 1,
        "nested": {"K": 1, "k": 2},
    }
    with published(tmp_path, [row]) as corpus:
        [found] = table_of(corpus).to_pylist()
    assert found == row


def test_an_object_used_as_a_dictionary_stays_json_text(tmp_path: Path) -> None:
    rows = [{"prompt": str(i), "completion": "c", "scores": {f"key{i}": i}} for i in range(300)]
    with published(tmp_path, rows) as corpus:
        out = table_of(corpus, [7])
    assert out["scores"].to_pylist() == ['{"key7":7}']


def test_a_choice_of_a_quarter_is_not_much_more_work_than_all_rows(tmp_path: Path) -> None:
    count = 50_000
    table = pairs(count, id=pa.array(range(count)))
    pq.write_table(table, tmp_path / "a.parquet")
    with published(tmp_path, tmp_path / "a.parquet") as corpus:

        def read(chosen: list[int] | None) -> tuple[int, float]:
            """How many rows there are, and the processor's seconds that they took."""
            began = time.process_time()
            found = sum(batch.num_rows for batch in corpus.originals(chosen))
            return found, time.process_time() - began

        whole, quarter = read(None), read(list(range(0, count, 4)))
    assert (whole[0], quarter[0]) == (count, count // 4)
    assert quarter[1] < 10 * whole[1]


# Opening


def test_a_file_that_is_no_corpus_is_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such corpus"):
        Corpus(tmp_path / "missing.duckdb")
    (tmp_path / "text.duckdb").write_text("not a database" * 1000)
    with pytest.raises(InputError, match="not a corpus file"):
        Corpus(tmp_path / "text.duckdb")
    with duckdb.connect(str(tmp_path / "other.duckdb")) as connection:
        connection.execute("CREATE TABLE t (x INTEGER)")
    with pytest.raises(InputError, match="a DuckDB file, but not a corpus"):
        Corpus(tmp_path / "other.duckdb")


def test_a_corpus_of_another_format_version_is_refused(tmp_path: Path) -> None:
    ingest([{"prompt": "p", "completion": "c"}], out=tmp_path / "c.duckdb")
    with duckdb.connect(str(tmp_path / "c.duckdb")) as connection:
        connection.execute("UPDATE provenance SET format_version = 99")
    with pytest.raises(InputError, match=r"corpus format 99.*ingest the data again"):
        Corpus(tmp_path / "c.duckdb")


def test_a_corpus_can_be_open_twice_and_is_read_only(tmp_path: Path) -> None:
    with published(tmp_path, [{"prompt": "p", "completion": "c"}]) as one, Corpus(one.path) as two:
        assert one.counts() == two.counts()
        with pytest.raises(duckdb.InvalidInputException, match="read-only"):
            one._connection.execute("DELETE FROM samples")
