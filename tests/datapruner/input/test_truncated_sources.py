"""Files that were cut: in every format what was whole is kept, and the report says where it broke off."""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from datapruner.corpora.corpus import Corpus
from datapruner.corpora.ingest import IngestReport, ingest
from datapruner.errors import InputError
from datapruner.input.readers import open_sources
from datapruner.input.readers.records import TRUNCATED
from datapruner.input.shapes import Limits

ROWS = [{"instruction": f"Say “{n}”, in words.", "output": f"line\n{n} \\ äöü 😀"} for n in range(4)]
MANY = [{"instruction": f"Name {n}.", "output": f"{n * 7919**3:x}" * 20} for n in range(3000)]


def as_lines(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_array(rows: list[dict[str, str]]) -> bytes:
    return json.dumps(rows, indent=1, ensure_ascii=False).encode()


def as_csv(rows: list[dict[str, str]]) -> bytes:
    quoted = ((value.replace('"', '""') for value in row.values()) for row in rows)
    return ("instruction,output\n" + "".join(f'"{a}","{b}"\n' for a, b in quoted)).encode()


def as_arrow(rows: list[dict[str, str]], *, stream: bool, size: int = 1) -> bytes:
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    opened = (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema)
    with opened as writer:
        writer.write_table(table, max_chunksize=size)
    return sink.getvalue()


def as_parquet(rows: list[dict[str, str]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=500)
    return sink.getvalue()


def read(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The whole rows of a file, and the codes of its faults."""
    [source] = open_sources(path)
    records = [
        record
        for batch in source.batches(Limits(), typed=source.schema is not None)
        for record in batch.records
    ]
    faults = [record.fault.code for record in records if record.fault is not None]
    return [record.row for record in records if record.fault is None], faults


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", as_lines(ROWS)),
        ("a.json", as_array(ROWS)),
        ("a.csv", as_csv(ROWS)),
        ("a.arrow", as_arrow(ROWS, stream=False)),
        ("a.arrows", as_arrow(ROWS, stream=True)),
    ],
)
def test_wherever_a_file_is_cut_the_rows_before_are_read_and_the_cut_is_told(
    name: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert read(path) == (ROWS, [])
    told = 0
    for size in range(content.index(b"u"), len(content)):
        path.write_bytes(content[:size])
        try:
            rows, faults = read(path)
        except InputError:  # of Arrow: the names of the columns are not there yet
            rows, faults = [], [TRUNCATED]
        if name == "a.csv" and content[:size].endswith(b'",'):
            continue  # nobody can tell it from a last column that is empty
        assert rows == ROWS[: len(rows)], size
        assert faults in ([], [TRUNCATED]), size
        told += faults == [TRUNCATED]
        between_rows = content[:size].endswith((b"\n", b"}", b'"')) or name == "a.arrows"
        assert faults or between_rows or size <= len(b"instruction,output"), size
    assert told > len(content) / 4


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.jsonl", as_lines),
        ("a.json", as_array),
        ("a.csv", as_csv),
        ("a.arrow", lambda rows: as_arrow(rows, stream=False, size=100)),
        ("a.arrows", lambda rows: as_arrow(rows, stream=True, size=100)),
    ],
)
def test_a_cut_archive_of_any_format_gives_what_was_whole_and_says_so_in_the_report(
    name: str, write: Callable[[list[dict[str, str]]], bytes], suffix: str, tmp_path: Path
) -> None:
    pack = gzip.compress if suffix == ".gz" else zstandard.compress
    packed = pack(write(MANY))
    path = tmp_path / (name + suffix)
    path.write_bytes(packed[: len(packed) * 3 // 4])
    report = ingest(path, out=tmp_path / "corpus.duckdb")
    assert 500 < report.accepted < len(MANY)
    assert report.rows == report.accepted + 1
    assert report.rejects == {TRUNCATED: 1}
    [(source, where)] = report.truncated_sources.items()
    assert source == path.name
    assert "truncated" in where
    assert "line " in where
    with Corpus(tmp_path / "corpus.duckdb") as corpus:
        assert corpus.truncated_sources() == report.truncated_sources


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_cut_parquet_file_has_no_row_that_could_be_read_and_is_named(suffix: str, tmp_path: Path) -> None:
    """Where its rows are stands at its end; beside others it costs only itself."""
    pack: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstandard.compress}
    packed = pack.get(suffix, bytes)(as_parquet(MANY))
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / f"a.parquet{suffix}"
    path.write_bytes(packed[: len(packed) * 3 // 4])
    with pytest.raises(InputError, match=r"truncated.*no row before this point is whole"):
        ingest(path, out=tmp_path / "corpus.duckdb")
    (folder / "b.jsonl").write_bytes(as_lines(ROWS))
    report = ingest(folder, out=tmp_path / "corpus.duckdb")
    assert (report.accepted, report.rejects) == (len(ROWS), {TRUNCATED: 1})
    assert list(report.truncated_sources) == [path.name]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_an_archive_cut_before_its_first_row_is_refused_with_the_cut_as_the_reason(
    pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(pack(as_lines(ROWS))[:40])
    with pytest.raises(InputError, match=r"truncated"):
        ingest(path, out=tmp_path / "corpus.duckdb")


def test_standard_input_that_is_cut_is_told_like_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = gzip.compress(as_arrow(MANY, stream=False, size=100))
    cut = io.BytesIO(packed[: len(packed) // 2])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=cut))
    report = ingest("-", out=tmp_path / "corpus.duckdb")
    assert 500 < report.accepted < len(MANY)
    assert list(report.truncated_sources) == ["stdin"]


def test_a_last_line_that_is_wrong_but_whole_is_not_taken_for_a_cut(tmp_path: Path) -> None:
    for line in ('{"a": 1,}', '{"a": 1} x', "EOF", '{"a": NaN}', '{"a": oops}', '{"a": "\ud800"}'):
        path = tmp_path / "a.jsonl"
        path.write_bytes(as_lines(ROWS) + line.encode(errors="surrogatepass"))
        _, [code] = read(path)
        assert code in ("broken_json", "invalid_unicode"), line


def test_a_whole_corpus_has_no_truncated_sources(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(as_lines(ROWS).rstrip())
    report: IngestReport = ingest(tmp_path / "a.jsonl", out=tmp_path / "corpus.duckdb")
    assert (report.accepted, report.truncated_sources) == (len(ROWS), {})
