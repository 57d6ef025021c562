"""A source goes in, an immutable corpus file comes out, or an error and nothing at all."""

from __future__ import annotations

import gzip
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datapruner.corpora.corpus import Corpus
from datapruner.corpora.ingest import ingest
from datapruner.errors import InputError, UsageError
from datapruner.input.readers import open_sources
from datapruner.input.shapes import Limits

DATA = Path(__file__).parents[4] / "shared" / "data"


def alpaca(count: int) -> list[dict[str, Any]]:
    return [{"id": i, "instruction": f"question {i}", "output": f"answer {i}"} for i in range(count)]


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def real(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the real data file {name} is not beside the repository")
    return path


MIXED: list[Any] = [
    {"instruction": "a", "output": "b"},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    '{"broken": ',
    {"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]},
    {"instruction": "a", "output": ""},
    {"prompt": "p", "completion": "c"},
    {"question": "q", "answer": "a"},
    [1, 2],
    {"instruction": "a", "output": "b", "id": "again"},
]


def test_the_report_accounts_for_every_row_of_a_file_that_mixes_shapes(tmp_path: Path) -> None:
    report = ingest(write_lines(tmp_path / "mixed.jsonl", MIXED), out=tmp_path / "c.duckdb")
    assert (report.rows, report.accepted, report.rejected, report.duplicates) == (9, 6, 3, 2)
    assert report.shapes == {
        "alpaca": 2,
        "messages": 1,
        "prompt-completion": 1,
        "question-answer": 1,
        "sharegpt": 1,
    }
    assert report.rejects == {"broken_json": 1, "missing_response": 1, "not_an_object": 1}
    assert report.columns["question-answer"] == ["question", "answer"]


def test_rejects_say_where_what_why_and_what_to_do(tmp_path: Path) -> None:
    ingest(write_lines(tmp_path / "mixed.jsonl", MIXED), out=tmp_path / "c.duckdb")
    with Corpus(tmp_path / "c.duckdb") as corpus:
        rejects = corpus.rejects().to_dicts()
    assert [(r["row"], r["source"], r["line"], r["code"]) for r in rejects] == [
        (2, "mixed.jsonl", 3, "broken_json"),
        (4, "mixed.jsonl", 5, "missing_response"),
        (7, "mixed.jsonl", 8, "not_an_object"),
    ]
    assert rejects[0]["excerpt"] == '{"broken": '
    assert rejects[1]["field"] == "output"
    assert rejects[1]["reason"] == "'output' is empty"
    assert rejects[1]["remedy"] == "fill in the response or remove the row"


def test_exact_duplicates_point_at_the_first_row_with_their_content(tmp_path: Path) -> None:
    rows = [*alpaca(3), *alpaca(2), *alpaca(3)]
    report = ingest(rows, out=tmp_path / "c.duckdb")
    assert report.duplicates == 5
    with Corpus(tmp_path / "c.duckdb") as corpus:
        index = corpus.sample_index()
    assert index["duplicate_of"].to_list() == [None, None, None, 0, 1, 0, 1, 2]
    assert index["sample_id"].n_unique() == 3


def test_the_same_input_gives_the_same_content_and_another_order_another_hash(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "mixed.jsonl", MIXED)
    files = [tmp_path / f"{i}.duckdb" for i in range(2)]
    reports = [ingest(path, out=file) for file in files]
    assert reports[0].corpus_hash == reports[1].corpus_hash
    tables = ("samples", "turns", "rejects", "originals", "provenance")
    contents = []
    for file in files:
        with duckdb.connect(str(file), read_only=True) as connection:
            contents.append([connection.execute(f"FROM {name}").fetchall() for name in tables])
    assert contents[0] == contents[1]
    turned = ingest(write_lines(path, MIXED[::-1]), out=tmp_path / "turned.duckdb")
    assert turned.corpus_hash != reports[0].corpus_hash


def test_json_and_parquet_of_the_same_rows_have_the_same_ids_and_hash(tmp_path: Path) -> None:
    rows = alpaca(100)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=2))
    sources = [tmp_path / "a.parquet", tmp_path / "a.json", rows]
    hashes = {ingest(source, out=tmp_path / "c.duckdb").corpus_hash for source in sources}
    assert len(hashes) == 1


def test_provenance_holds_the_source_with_its_digest_and_no_place_or_time(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", alpaca(2))
    mapping = {"prompt": "instruction", "response": "output"}
    ingest(path, out=tmp_path / "c.duckdb", mapping=mapping, limits=Limits(9))
    with Corpus(tmp_path / "c.duckdb") as corpus:
        found = corpus.provenance
    [source] = found.sources
    assert source["name"] == "a.jsonl"
    assert source["size"] == path.stat().st_size
    assert len(source["sha256"]) == 64
    assert found.mapping == mapping
    assert found.limits == {"max_turns": 9, "max_row_bytes": 16 << 20}
    assert found.shapes == {"mapped": 2}
    assert "duckdb" in found.versions
    assert found.schema is None


def test_nothing_is_published_when_no_row_is_accepted(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "bad.jsonl", [{"instruction": "a", "output": ""}] * 3 + [{"x": 1}])
    message = (
        r"bad.jsonl: none of the 4 rows.*3 × missing_response \(bad.jsonl, line 1: 'output' is empty\); 1 ×"
    )
    with pytest.raises(InputError, match=message):
        ingest(path, out=tmp_path / "out" / "c.duckdb")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_input_without_rows_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(InputError, match=r"a\.json: there are no rows"):
        ingest(tmp_path / "a.json", out=tmp_path / "c.duckdb")
    with pytest.raises(InputError, match="rows: there are no rows"):
        ingest([], out=tmp_path / "c.duckdb")


def test_a_failure_leaves_the_earlier_corpus_and_no_litter(tmp_path: Path) -> None:
    out = tmp_path / "c.duckdb"
    ingest(alpaca(3), out=out)

    def rows() -> Any:
        yield from alpaca(10_000)
        raise RuntimeError("the generator broke")

    with pytest.raises(RuntimeError, match="the generator broke"):
        ingest(rows(), out=out)
    assert [path.name for path in tmp_path.iterdir()] == ["c.duckdb"]
    with Corpus(out) as corpus:
        assert corpus.counts().rows == 3


def test_a_corpus_can_be_replaced_while_another_reader_holds_it(tmp_path: Path) -> None:
    out = tmp_path / "c.duckdb"
    ingest(alpaca(3), out=out)
    before = out.stat().st_ino
    ingest(alpaca(5), out=out)
    assert out.stat().st_ino != before
    with Corpus(out) as corpus:
        assert corpus.counts().rows == 5


def test_a_mapped_column_that_no_row_has_is_an_error_and_not_silence(tmp_path: Path) -> None:
    mapping = {"prompt": "instruction", "response": "output", "system": "sytem"}
    with pytest.raises(UsageError, match="the mapping names 'sytem', which no row has"):
        ingest(alpaca(3), out=tmp_path / "c.duckdb", mapping=mapping)


def test_a_folder_becomes_one_corpus_with_rows_numbered_throughout(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_lines(folder / "a.jsonl", alpaca(2))
    (folder / "b.json").write_bytes(b"\x89PNG\r\n\x1a\n\0")
    pq.write_table(pa.Table.from_pylist(alpaca(4)), folder / "c.parquet")
    report = ingest(folder, out=tmp_path / "c.duckdb")
    assert (report.rows, report.accepted, report.duplicates) == (7, 6, 2)
    assert report.rejects == {"unreadable_file": 1}
    with Corpus(tmp_path / "c.duckdb") as corpus:
        assert corpus.sample_index()["row"].to_list() == [0, 1, 3, 4, 5, 6]
        assert [json.loads(line)["id"] for line in corpus.originals_json()] == [0, 1, 0, 1, 2, 3]


def test_a_folder_of_json_and_of_columns_that_json_has_no_form_for_becomes_one_corpus(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_lines(folder / "a.jsonl", [{**each, "score": 0.5} for each in alpaca(1)])
    table = pa.Table.from_pylist(alpaca(2)[1:]).append_column(
        "image", pa.array([{"bytes": b"\x00\xff", "path": "x.png"}])
    )
    table = table.append_column("score", pa.array([float("nan")], pa.float16()))
    table = table.append_column("price", pa.array([Decimal("1.20")], pa.decimal256(50, 2)))
    pq.write_table(table, folder / "b.parquet")
    report = ingest(folder, out=tmp_path / "c.duckdb")
    assert (report.rows, report.accepted) == (2, 2)
    with Corpus(tmp_path / "c.duckdb") as corpus:
        found = pa.Table.from_batches(corpus.originals())
        _, second = map(json.loads, corpus.originals_json())
    assert found["image"].to_pylist() == [None, {"bytes": "AP8=", "path": "x.png"}]
    assert found["price"].to_pylist() == [None, "1.20"]
    assert found["score"][0].as_py() == 0.5
    assert math.isnan(found["score"][1].as_py())
    assert second["score"] == "NaN"


def test_shards_whose_nested_keys_differ_become_one_corpus(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, meta in (("a", {"x": 1}), ("b", {"y": ["z"]})):
        pq.write_table(pa.Table.from_pylist([{**alpaca(1)[0], "meta": meta}]), folder / f"{name}.parquet")
    ingest(folder, out=tmp_path / "c.duckdb")
    with Corpus(tmp_path / "c.duckdb") as corpus:
        found = pa.Table.from_batches(corpus.originals())["meta"].to_pylist()
    assert found == [{"x": 1, "y": None}, {"x": None, "y": ["z"]}]


def test_parquet_shards_that_differ_in_columns_keep_them_typed(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    rows = alpaca(4)
    pq.write_table(pa.Table.from_pylist(rows[:2]), folder / "a.parquet")
    pq.write_table(pa.Table.from_pylist([{**row, "score": 0.5} for row in rows[2:]]), folder / "b.parquet")
    ingest(folder, out=tmp_path / "c.duckdb")
    with Corpus(tmp_path / "c.duckdb") as corpus:
        table = pa.Table.from_batches(corpus.originals())
    assert table.schema.field("score").type == pa.float64()
    assert table["score"].to_pylist() == [None, None, 0.5, 0.5]
    assert table["id"].to_pylist() == [0, 1, 2, 3]


def test_a_truncated_archive_gives_a_corpus_of_the_rows_before_the_break(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in alpaca(20_000)).encode()
    packed = gzip.compress(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    report = ingest(tmp_path / "a.jsonl.gz", out=tmp_path / "c.duckdb")
    assert report.rejects == {"truncated_stream": 1}
    assert report.accepted > 5000
    assert report.rows == report.accepted + 1


def test_progress_reaches_the_end_of_the_input(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", alpaca(20_000))
    calls: list[tuple[int, int, int | None]] = []
    ingest(path, out=tmp_path / "c.duckdb", progress=lambda *call: calls.append(call))
    size = path.stat().st_size
    assert calls[-1] == (20_000, size, size)
    assert [rows for rows, _, _ in calls] == sorted(rows for rows, _, _ in calls)
    calls.clear()
    ingest(iter(alpaca(5)), out=tmp_path / "c.duckdb", progress=lambda *call: calls.append(call))
    assert calls[-1] == (5, 0, None)


def test_rows_that_are_rejected_by_the_thousand_do_not_stop_the_rest(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "output": ""}] * 10_000 + alpaca(1)
    report = ingest(rows, out=tmp_path / "c.duckdb")
    assert (report.rejected, report.accepted) == (10_000, 1)


@pytest.mark.parametrize(
    ("name", "rows", "accepted", "duplicates"),
    [
        ("chat/sharegpt_3k.parquet", 3000, 2998, 37),
        ("chat/glaive_toolcall_300.parquet", 300, 300, 35),
        ("chat/reason_tool_use_100.parquet", 100, 99, 0),
    ],
)
def test_real_chats_are_ingested_and_come_out_again_unchanged(
    tmp_path: Path, name: str, rows: int, accepted: int, duplicates: int
) -> None:
    report = ingest(real(name), out=tmp_path / "c.duckdb")
    assert (report.rows, report.accepted, report.duplicates) == (rows, accepted, duplicates)
    table = pq.read_table(real(name))
    with Corpus(tmp_path / "c.duckdb") as corpus:
        kept = corpus.sample_index()["row"].to_arrow()
        out = pa.Table.from_batches(corpus.originals())
        count = sum(len(batch) for batch in corpus.conversations())
    assert out.equals(table.take(kept))
    assert count == accepted - duplicates


@pytest.mark.slow
def test_all_of_alpaca_is_ingested_from_parquet_and_from_json_alike(tmp_path: Path) -> None:
    table = pq.read_table(real("alpaca/alpaca_52k.parquet"))
    (tmp_path / "alpaca.json").write_text(json.dumps(table.drop(["id"]).to_pylist(), indent=4))
    report = ingest(real("alpaca/alpaca_52k.parquet"), out=tmp_path / "p.duckdb")
    assert (report.rows, report.accepted, report.rejects) == (52_002, 51_974, {"missing_response": 28})
    assert report.corpus_hash == ingest(tmp_path / "alpaca.json", out=tmp_path / "j.duckdb").corpus_hash
    with Corpus(tmp_path / "p.duckdb") as corpus:
        rows = corpus.sample_index()["row"].gather_every(4)
        out = pa.Table.from_batches(corpus.originals(rows.to_list()))
    assert out.equals(table.take(rows.to_arrow()))


def test_sources_are_described_without_being_read(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", alpaca(1))
    [source] = open_sources(path)
    assert (source.name, source.bytes_total, source.bytes_done) == ("a.jsonl", path.stat().st_size, 0)
