"""Every kind of sound input as a stream of records."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.errors import InputError, UsageError
from datapruner.input.readers import Dataset, open_sources
from datapruner.input.readers.jsontext import read_array, read_lines
from datapruner.input.shapes import Limits
from tests.datapruner.input.reading import LINES, PACKERS, ROWS, faults, pieces, records, rows, write

# Formats


def as_bytes(kind: str) -> bytes:
    table = pa.Table.from_pylist(ROWS)
    sink = io.BytesIO()
    if kind == "json":
        return json.dumps(ROWS).encode()
    if kind == "pretty json":
        return json.dumps(ROWS, indent=4, ensure_ascii=False).encode()
    if kind == "jsonl":
        return LINES
    if kind == "csv":
        pl.from_arrow(table).write_csv(sink)  # type: ignore[union-attr]
    elif kind == "parquet":
        pq.write_table(table, sink)
    else:
        new = pa.ipc.new_file if kind == "arrow file" else pa.ipc.new_stream
        with new(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()


SUFFIXES = {
    "json": ".json",
    "pretty json": ".json",
    "jsonl": ".jsonl",
    "csv": ".csv",
    "parquet": ".parquet",
    "arrow file": ".arrow",
    "arrow stream": ".arrow",
}


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("kind", SUFFIXES)
def test_every_format_gives_the_same_rows_plain_and_compressed(
    tmp_path: Path, kind: str, packing: str
) -> None:
    path = write(tmp_path / f"data{SUFFIXES[kind]}{packing}", PACKERS[packing](as_bytes(kind)))
    assert rows(path) == ROWS
    assert rows(str(path)) == ROWS


@pytest.mark.parametrize("kind", SUFFIXES)
def test_every_format_is_told_from_its_content_on_standard_input(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    stdin = SimpleNamespace(buffer=io.BytesIO(gzip.compress(as_bytes(kind))))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert rows("-") == ROWS


def test_content_decides_when_the_name_lies(tmp_path: Path) -> None:
    assert rows(write(tmp_path / "lines.json", LINES)) == ROWS
    assert rows(write(tmp_path / "array.jsonl", as_bytes("json"))) == ROWS
    assert rows(write(tmp_path / "packed.jsonl", gzip.compress(LINES))) == ROWS
    assert rows(write(tmp_path / "table.json", as_bytes("parquet"))) == ROWS


def test_members_of_a_compressed_file_are_read_one_after_the_other(tmp_path: Path) -> None:
    half = len(LINES) // 2
    for name, pack in (("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.compress)):
        assert rows(write(tmp_path / name, pack(LINES[:half]) + pack(LINES[half:]))) == ROWS


def test_a_byte_order_mark_and_windows_line_ends_are_not_content(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    for name, kind in (("a.jsonl", "jsonl"), ("a.json", "pretty json"), ("a.csv", "csv")):
        content = mark + as_bytes(kind).replace(b"\n", b"\r\n")
        assert rows(write(tmp_path / name, content)) == ROWS


def test_positions_are_line_numbers_and_blank_lines_are_not_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'\n{"a": 1}\n\n  \n{"a": 2}')
    assert [(r.position, r.row) for r in records(path)] == [(2, {"a": 1}), (5, {"a": 2})]
    path = write(tmp_path / "a.json", b'[\n{"a": 1},\n\n{"a":\n2}]')
    assert [(r.position, r.row) for r in records(path)] == [(2, {"a": 1}), (4, {"a": 2})]
    path = write(tmp_path / "a.csv", b'a,b\n1,"x\ny"\n2,z\n')
    assert [(r.position, r.row["a"]) for r in records(path)] == [(2, "1"), (4, "2")]


def test_json_rows_keep_their_own_text(tmp_path: Path) -> None:
    text = b'{"z": 1.0, "a": 1e5, "big": 123456789012345678901234567890, "u": "\\u00e4"}'
    assert [r.text for r in records(write(tmp_path / "a.jsonl", text + b"\r\n"))] == [text]
    assert [r.text for r in records(write(tmp_path / "a.json", b"[" + text + b"]"))] == [text]
    pretty = b'[\n  {\n    "a": "two  \\n lines",\n    "b": [\n      1\n    ]\n  }\n]'
    [record] = records(write(tmp_path / "b.json", pretty))
    assert record.text == b'{"a": "two  \\n lines","b": [1]}'


whole = st.integers(-(2**63), 2**63 - 1)
json_rows = st.dictionaries(st.text(max_size=5), st.text(max_size=30) | whole | st.none())


@settings(max_examples=60)
@given(
    st.lists(json_rows, min_size=1),
    st.integers(1, 40),
    st.sampled_from([None, 2]),
)
def test_json_survives_any_chunking(values: list[dict[str, Any]], size: int, indent: int | None) -> None:
    array = json.dumps(values, indent=indent, ensure_ascii=False).encode()
    lines = "\n".join(json.dumps(value) for value in values).encode()
    for reader, content in ((read_array, array), (read_lines, lines)):
        found = [record for batch in reader(pieces(content, size), Limits()) for record in batch.records]
        expected = json.loads(content) if reader is read_array else values
        assert [record.row for record in found] == expected
        assert [json.loads(record.text or b"") for record in found] == expected


# Folders, tables, datasets, Python


def test_a_folder_is_read_in_order_without_hidden_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".cache").mkdir()
    write(tmp_path / "b.jsonl", b'{"n": 2}')
    write(tmp_path / "sub" / "c.json.gz", gzip.compress(b'[{"n": 3}]'))
    write(tmp_path / "a.csv", b"n\n1\n")
    write(tmp_path / "README.md", b"# not data")
    write(tmp_path / ".cache" / "d.jsonl", b'{"n": 4}')
    assert [source.name for source in open_sources(tmp_path)] == ["a.csv", "b.jsonl", "sub/c.json.gz"]
    assert [row["n"] for row in rows(tmp_path)] == ["1", 2, 3]


def test_a_bad_file_in_a_folder_is_a_fault_and_the_others_survive(tmp_path: Path) -> None:
    write(tmp_path / "a.json", b"\x89PNG\r\n\x1a\n\0\0")
    write(tmp_path / "b.jsonl", b'{"n": 1}')
    write(tmp_path / "c.jsonl", b"")
    write(tmp_path / "d.parquet", b"PAR1 and nothing more")
    found = records(tmp_path)
    assert [r.row for r in found if r.fault is None] == [{"n": 1}]
    reasons = [r.fault.reason for r in found if r.fault is not None]
    assert [reason.split(":")[0] for reason in reasons] == ["a.json", "c.jsonl", "d.parquet"]


def test_tables_in_memory_are_read() -> None:
    table = pa.Table.from_pylist(ROWS)
    frame = pl.DataFrame(ROWS)
    for source in (table, table.to_batches()[0], table.to_reader(), frame, frame.lazy()):
        assert rows(source) == ROWS


def test_rows_from_python_are_read_whatever_iterates_them() -> None:
    assert rows(ROWS) == ROWS
    assert rows(iter(ROWS)) == ROWS
    assert rows(tuple(ROWS)) == ROWS
    assert faults([object(), {"a": {1, 2}, "b": "\ud800"}]) == [(2, "invalid_unicode")]


def test_columns_that_no_shape_reads_are_not_turned_into_python_objects() -> None:
    [record] = records(pa.table({"instruction": ["a"], "output": ["b"], "embedding": [[0.5] * 8]}))
    assert record.row == {"instruction": "a", "output": "b", "embedding": None}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_datasets_are_read_from_memory_and_from_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_list(ROWS)
    assert rows(dataset) == ROWS
    assert rows(dataset.select([3, 1])) == [ROWS[3], ROWS[1]]
    assert rows(dataset.to_iterable_dataset()) == ROWS
    dataset.save_to_disk(tmp_path / "saved")
    assert rows(tmp_path / "saved") == ROWS
    splits = datasets.DatasetDict({"train": dataset, "test": dataset.select([0])})
    with pytest.raises(UsageError, match="choose one of train, test"):
        open_sources(splits)
    splits.save_to_disk(tmp_path / "splits")
    assert rows(tmp_path / "splits") == ROWS
    assert rows(Dataset(str(tmp_path / "splits"), split="test")) == ROWS[:1]
    with pytest.raises(UsageError, match=r"no split 'dev'.*its splits are train, test"):
        open_sources(Dataset(str(tmp_path / "splits"), split="dev"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_hub_path_streams_a_local_dataset_folder(tmp_path: Path) -> None:
    folder = tmp_path / "org" / "name"
    folder.mkdir(parents=True)
    write(folder / "train.jsonl", LINES)
    [source] = open_sources(Dataset(str(folder)))
    assert source.name == "name[train]"
    assert rows(Dataset(str(folder))) == ROWS


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_dataset_that_cannot_be_opened_names_it_and_says_what_to_check(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: the dataset cannot be opened.*check the name"):
        open_sources(Dataset(str(tmp_path / "nowhere")))
