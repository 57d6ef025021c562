"""Formats: what the table of them says, and that rows are the same whichever form they are written from."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from datapruner.rows import formats
from datapruner.rows.formats import ANSWERS, EXPORTS, FILES, FORMATS, exported, is_plain, unheard
from datapruner.rows.writable import Rows


def written(rows: Rows, name: str) -> bytes:
    file = io.BytesIO()
    FORMATS[name].write(file, rows, unheard)
    return file.getvalue()


def test_each_format_has_a_suffix_and_a_media_type_of_its_own() -> None:
    assert set(ANSWERS) == set(FORMATS)
    assert set(map(exported, EXPORTS)) == {FORMATS[name] for name in FILES}
    assert [name for name in EXPORTS if not is_plain(name)] == list(FILES)
    for each in ("suffix", "media_type"):
        assert len({getattr(found, each) for found in FORMATS.values()}) == len(FORMATS)
    assert formats.suffixes(FILES) == {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl"}
    assert formats.listed(FILES) == ".parquet, .csv or .jsonl"


@pytest.fixture(scope="module")
def every_type() -> pa.Table:
    sql = r"""
        SELECT * EXCLUDE (bignum, bit, geometry), 'a "b"\n' || chr(10) || chr(0) AS escapes, 'null' AS word,
               '[1]' AS list_text, ['a "b"', NULL] AS quotes, 'NaN'::DOUBLE AS nan
        FROM test_all_types()
    """
    return duckdb.sql(sql).to_arrow_table()


@pytest.mark.parametrize("name", ["csv", "json"])
def test_rows_known_by_line_are_written_as_those_known_by_column(name: str, every_type: pa.Table) -> None:
    rows = Rows.of(every_type, "rows")
    assert written(replace(rows, known=None), name) == written(rows, name)


def test_json_has_what_is_said_of_the_rows_beside_them(every_type: pa.Table) -> None:
    rows = Rows.of(every_type.select(["int", "word"]), "rows", {"more": [1]})
    assert json.loads(written(rows, "json")) == {
        "more": [1],
        "rows": [[-(2**31), "null"], [2**31 - 1, "null"], [None, "null"]],
    }
    assert written(Rows.of(pa.table({"int": pa.array([], pa.int32())}), "rows"), "json") == b'{"rows":[]}\n'


@pytest.mark.parametrize("name", ANSWERS)
def test_rows_of_many_batches_are_all_there(name: str) -> None:
    told: list[int] = []
    count = FORMATS[name].write(io.BytesIO(), Rows.of(pa.table({"n": range(5000)}), "rows"), told.append)
    assert (count, told == sorted(told), 2048 <= told[-1] <= 5000) == (5000, True, True)


def test_no_other_file_of_the_package_or_the_api_says_what_a_format_is() -> None:
    root = Path(__file__).parents[3]
    sources = [path for folder in ("datapruner", "api") for path in sorted((root / folder).rglob("*.py"))]
    kinds = [each.media_type for each in FORMATS.values() if each.name != "json"]  # which everything speaks
    naming = [path for path in sources if any(kind in path.read_text(encoding="utf-8") for kind in kinds)]
    assert naming == [Path(formats.__file__)]
    lists = [path for path in sources if formats.listed(FILES) in path.read_text(encoding="utf-8")]
    assert lists == []


def test_exports_are_found_by_the_suffix_of_their_files() -> None:
    for name in EXPORTS:
        assert formats.export_with(exported(name).suffix, plain=is_plain(name)) == name
