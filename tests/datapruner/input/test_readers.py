"""Every kind of input, sound and broken, as a stream of records."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tracemalloc
from collections.abc import Iterator
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
from datapruner.input.readers import Dataset, Record, open_sources
from datapruner.input.readers.jsontext import read_array, read_lines
from datapruner.input.readers.streams import BrokenStreamError, decompress
from datapruner.input.shapes import Limits

ROWS = [{"instruction": f"question {i}", "output": f"answer {i} äöü 😀"} for i in range(5)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def records(source: Any, limits: Limits | None = None) -> list[Record]:
    return [
        record
        for item in open_sources(source)
        for batch in item.batches(limits or Limits(), typed=item.schema is not None)
        for record in batch.records
    ]


def rows(source: Any) -> list[Any]:
    return [record.row for record in records(source)]


def faults(source: Any, limits: Limits | None = None) -> list[tuple[int, str]]:
    found = records(source, limits)
    return [(record.position, record.fault.code) for record in found if record.fault is not None]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def pieces(content: bytes, size: int) -> Iterator[bytes]:
    return (content[i : i + size] for i in range(0, len(content), size))


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
PACKERS = {"": lambda data: data, ".gz": gzip.compress, ".zst": zstandard.compress}


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


# Bad input


def test_a_broken_line_is_a_fault_with_its_number_and_the_rest_survives(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"n": 1}\n{"n": \n{"n": 3}\n')
    assert faults(path) == [(2, "broken_json")]
    assert [r.row for r in records(path) if r.fault is None] == [{"n": 1}, {"n": 3}]


@pytest.mark.parametrize(
    "broken",
    [
        '{"n": 2, "text": oops}',
        '{"n": 2,, "text": "x"}',
        '{"n": 2, "text": "unclosed}',
        '{"n": 2 "text": "x"}',
        '{"n": 2, "text": "bad \\q escape"}',
        '{"n": 2, "text": "x"',
        '{"n": 2, "text": NaN}',
        '{"n": 2, "text": "raw\nbreak"}',
        "garbage",
    ],
)
@pytest.mark.parametrize("size", [7, 1 << 20])
def test_a_broken_element_of_an_array_is_a_fault_and_the_next_is_found(broken: str, size: int) -> None:
    content = f'[{{"n": 1, "text": "a"}},\n{broken},\n{{"n": 3, "text": "c"}}, {{"n": 4}}]'.encode()
    found = [r for batch in read_array(pieces(content, size), Limits()) for r in batch.records]
    assert [(r.position, r.fault.code) for r in found if r.fault is not None] == [(2, "broken_json")]
    assert [r.row["n"] for r in found if r.fault is None] == [1, 3, 4]


def test_text_that_looks_like_an_element_inside_a_string_does_not_mislead(tmp_path: Path) -> None:
    inner = json.dumps({"n": 9, "text": "z"})
    content = b'[{"n": 1, "text": oops, "more": %s}, {"n": 2}]' % json.dumps(inner).encode()
    path = write(tmp_path / "a.json", content)
    assert [r.row for r in records(path) if r.fault is None] == [{"n": 2}]


def test_an_array_without_its_end_keeps_the_rows_before(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", b'[{"n": 1}, {"n": 2}, {"n":')
    assert faults(path) == [(1, "truncated_stream")]
    assert len(records(path)) == 3
    assert faults(write(tmp_path / "b.json", b'[{"n": 1}')) == [(1, "truncated_stream")]


@pytest.mark.parametrize("number", ["9" * 4000, "9" * 5000, "1e999999", "-1E+400", f"{'1' * 300}e99"])
@pytest.mark.parametrize(
    "form", ['{"id": 1, "meta": {"sizes": [1, %s]}}', '[{"id": 1, "meta": {"sizes": [1, %s]}}]']
)
def test_a_number_that_no_float_holds_is_told_as_one_with_its_place(
    form: str, number: str, tmp_path: Path
) -> None:
    [record] = records(write(tmp_path / "a.json", (form % number).encode()))
    assert record.fault is not None
    assert (record.fault.code, record.fault.field) == ("number_out_of_range", "meta.sizes[1]")
    assert number[:20] in record.fault.reason
    assert len(record.fault.reason) < 120


@pytest.mark.parametrize("form", ['{"id": %s}', '[{"id": %s}]'])
def test_numbers_that_a_float_holds_are_read_however_long_they_are(form: str, tmp_path: Path) -> None:
    for number in ("9" * 300, "-" + "9" * 308, "1e308", "1e-999999", "0." + "3" * 5000):
        [record] = records(write(tmp_path / "a.json", (form % number).encode()))
        assert record.fault is None, number
        assert float(record.row["id"]) == float(number)


@pytest.mark.parametrize("half", [r"\ud800", r"\udc00", r"\ud83d\ud83d", r"\ud83dx", r"\ud83d\u0041"])
@pytest.mark.parametrize("form", ['{"a": "%s"}', '[{"a": "%s"}]'])
def test_half_a_surrogate_pair_is_told_as_one(form: str, half: str, tmp_path: Path) -> None:
    [record] = records(write(tmp_path / "a.json", (form % half).encode()))
    assert record.fault is not None
    assert record.fault.code == "invalid_unicode"
    assert "surrogate" in record.fault.reason


def test_text_after_an_array_is_a_fault(tmp_path: Path) -> None:
    assert faults(write(tmp_path / "a.json", b'[{"n": 1}]\n{"n": 2}\n')) == [(2, "broken_json")]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_a_truncated_archive_keeps_the_rows_before_the_break(tmp_path: Path, pack: Any, kind: str) -> None:
    many = [{"n": str(i), "text": hex(i * 7919**3)} for i in range(20_000)]
    text = {
        "jsonl": "\n".join(map(json.dumps, many)),
        "json": json.dumps(many, indent=1),
        "csv": "n,text\n" + "".join(f"{row['n']},{row['text']}\n" for row in many),
    }[kind]
    packed = pack(text.encode())
    path = write(tmp_path / f"a.{kind}.gz", packed[: len(packed) // 2])
    found = records(path)
    assert [r.fault.code for r in found if r.fault is not None] == ["truncated_stream"]
    assert found[-1].fault is not None
    assert "truncated" in found[-1].fault.reason
    good = [r.row for r in found if r.fault is None]
    assert len(good) > 5000
    assert good == many[: len(good)]


def test_a_damaged_archive_is_told_from_a_truncated_one() -> None:
    packed = bytearray(gzip.compress(bytes(range(256)) * 1000))
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(BrokenStreamError, match="damaged"):
        list(decompress(io.BytesIO(bytes(packed))))


def test_bytes_that_are_not_utf8_spoil_their_own_row_alone(tmp_path: Path) -> None:
    line = b'{"n": 1, "text": "caf\xe9"}'
    for name, content, position in (
        ("a.jsonl", b'{"n": 0}\n' + line + b'\n{"n": 2}\n', 2),
        ("a.json", b'[{"n": 0},\n' + line + b',\n{"n": 2}]', 2),
        ("a.csv", b"n,text\n0,ok\n1,caf\xe9\n2,ok\n", 3),
    ):
        path = write(tmp_path / name, content)
        assert faults(path) == [(position, "invalid_unicode")]
        assert [int(r.row["n"]) for r in records(path) if r.fault is None] == [0, 2]


def test_strings_in_a_table_that_are_not_utf8_spoil_their_own_row_alone() -> None:
    column = pa.Array.from_buffers(pa.string(), 3, pa.array([b"ok", b"caf\xe9", b"ok"]).buffers())
    assert faults(pa.table({"output": column})) == [(2, "invalid_unicode")]


def test_strings_that_are_not_utf8_spoil_their_own_row_wherever_they_are() -> None:
    bad = pa.Array.from_buffers(pa.string(), 3, pa.array([b"ok", b"caf\xe9", b"ok"]).buffers())
    nested = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), bad)
    for column in (bad, nested, pa.StructArray.from_arrays([bad], ["text"])):
        table = pa.table({"output": ["a", "b", "c"], "beside": column})
        assert faults(table) == [(2, "invalid_unicode")]
        assert [record.row["output"] for record in records(table) if record.fault is None] == ["a", "c"]


def test_offsets_that_point_outside_of_a_batch_are_never_followed() -> None:
    offsets = pa.array([0, 2**31 - 1, 2], pa.int32()).buffers()[1]
    column = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"ab")])
    assert faults(pa.table({"output": column})) == [(1, "broken_value"), (2, "broken_value")]


def test_a_value_that_python_cannot_hold_spoils_its_own_row_alone() -> None:
    moments = pa.array([0, 2**62, 1], pa.timestamp("us"))
    assert faults(pa.table({"output": moments})) == [(2, "broken_value")]


def test_half_characters_and_raw_nuls_are_faults(tmp_path: Path) -> None:
    assert faults(write(tmp_path / "a.jsonl", b'{"a": "\\ud800"}\n{"a": "\0"}\n')) == [
        (1, "invalid_unicode"),
        (2, "nul_character"),
    ]
    assert faults(write(tmp_path / "a.json", b'[{"a": "\\ud800"}, {"a": 1}]')) == [(1, "invalid_unicode")]


def test_nan_is_refused_with_what_to_write_instead(tmp_path: Path) -> None:
    for name, content in (("a.jsonl", b'{"a": NaN}'), ("a.json", b'[{"a": NaN}]')):
        [record] = records(write(tmp_path / name, content))
        assert record.fault is not None
        assert "NaN is not a JSON value, write null" in record.fault.reason


def test_endless_nesting_is_a_fault_and_no_crash(tmp_path: Path) -> None:
    deep = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert faults(write(tmp_path / "a.jsonl", deep + b"\n{}\n")) == [(1, "broken_json")]
    assert faults(write(tmp_path / "a.json", b"[" + deep + b', {"b": 1}]'))[0] == (1, "broken_json")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_50_mb_row_is_refused_within_bounded_memory(tmp_path: Path, name: str) -> None:
    huge = b"x" * 50_000_000
    content = {
        "a.jsonl": b'{"n": 1}\n{"n": "%s"}\n{"n": 3}\n' % huge,
        "a.json": b'[{"n": 1},\n{"n": "%s"},\n{"n": 3}]' % huge,
        "a.csv": b"n\n1\n%s\n3\n" % huge,
    }[name]
    path = write(tmp_path / name, content)
    del huge, content
    limits = Limits(max_row_bytes=1 << 20)
    tracemalloc.start()
    found = records(path, limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [r.fault.code for r in found if r.fault is not None] == ["row_too_large"]
    assert [int(r.row["n"]) for r in found if r.fault is None] == [1, 3]
    assert peak < 25e6


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_decompression_bomb_stays_within_bounded_memory(tmp_path: Path, pack: Any) -> None:
    path = write(tmp_path / "a.jsonl.gz", pack(b'{"n": "' + b"x" * 60_000_000))
    tracemalloc.start()
    found = faults(path, Limits(max_row_bytes=1 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [(1, "row_too_large")]
    assert peak < 30e6


def test_csv_rows_with_another_number_of_fields_are_faults(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b'a,b\n1,2\n1,2,3\n1\n"un"quoted,2\n')
    assert faults(path) == [(3, "wrong_field_count"), (4, "wrong_field_count"), (5, "broken_csv")]


def test_values_of_a_csv_stay_the_text_that_they_are(tmp_path: Path) -> None:
    [record] = records(write(tmp_path / "a.csv", b"a,b,c,d\n007,1.0,,NULL\n"))
    assert record.row == {"a": "007", "b": "1.0", "c": "", "d": "NULL"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"", "a.json: the file is empty"),
        ("a.jsonl", b" \n\n", "a.jsonl: the file is empty"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0), "a.jsonl.gz: the file is empty"),
        ("a.json", b"\x89PNG\r\n\x1a\n\0\0\0", "a.json: a binary file.*convert it"),
        ("a.json", b"PK\x03\x04\x14\0", "a.json: a binary file"),
        ("a.parquet", b"not parquet", "a.parquet: the content is not parquet data"),
        ("a.parquet", b"PAR1 but broken", "a.parquet: the Parquet file is truncated"),
        ("a.parquet", b"PAR1 but broken PAR1", "a.parquet: not a readable Parquet file"),
        ("a.arrow", b"ARROW1\0\0broken", "a.arrow: the Arrow file is truncated"),
        ("a.json", "[{}]".encode("utf-16"), "a.json: the text is UTF-16.*UTF-8"),
        ("a.csv", b"a,b,a\n1,2,3\n", "a.csv: the column 'a' appears twice"),
        ("notes.txt", b"just prose", "notes.txt: cannot tell the format"),
    ],
)
def test_a_file_that_is_no_data_is_an_error_that_names_it(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        open_sources(write(tmp_path / name, content))


def test_a_column_named_twice_in_a_table_is_an_error_that_names_it() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    with pytest.raises(InputError, match="the column 'a' appears twice"):
        open_sources(table)


def test_a_folder_without_data_and_a_missing_path_are_errors(tmp_path: Path) -> None:
    write(tmp_path / "README.md", b"# nothing")
    with pytest.raises(InputError, match=r"no data files.*\.jsonl"):
        open_sources(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        open_sources(tmp_path / "missing.json")
    with pytest.raises(UsageError, match="cannot read rows from a int"):
        open_sources(7)


def test_a_parquet_file_that_breaks_midway_keeps_the_rows_before(tmp_path: Path) -> None:
    table = pa.table({"output": [f"{i:09d}" * 20 for i in range(20_000)]})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=5000, compression="zstd", use_dictionary=False)
    content = bytearray(path.read_bytes())
    middle = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    content[middle + 10 : middle + 60] = b"\xff" * 50
    path.write_bytes(bytes(content))
    found = records(path)
    assert found[-1].fault is not None
    assert found[-1].fault.code == "truncated_stream"
    assert [r.row["output"] for r in found[:-1]] == table["output"].to_pylist()[: len(found) - 1]
    assert len(found) > 5000
