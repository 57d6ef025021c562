"""Every kind of broken input: what is said of it, and what survives."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from datapruner.errors import InputError, UsageError
from datapruner.input.readers import open_sources
from datapruner.input.readers.jsontext import read_array
from datapruner.input.readers.streams import BrokenStreamError, decompress
from datapruner.input.shapes import Limits
from tests.datapruner.input.reading import faults, pieces, records, write


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
