"""A corpus and an addition, against ingesting all rows at once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pytest

from datapruner.corpora import store
from datapruner.corpora.append import Appended, append
from datapruner.corpora.corpus import Corpus
from datapruner.corpora.ingest import ingest


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"instruction": f"Question {number}?", "output": f"Answer {number}.", **more}


BAD = {"instruction": "No answer here", "output": ""}


def corpus(path: Path, rows: Any) -> Path:
    ingest(rows, out=path)
    return path


def content(path: Path) -> dict[str, Any]:
    """All that a corpus says, without the names of its sources."""
    with Corpus(path) as opened:
        return {
            "index": opened.sample_index().rows(),
            "rejects": opened.rejects().drop("source", "line").rows(),
            "conversations": [item for batch in opened.conversations() for item in batch],
            "originals": list(opened.originals_json()),
            "hash": opened.provenance.corpus_hash,
            "counts": opened.counts(),
            "shapes": opened.provenance.shapes,
        }


def test_appending_gives_what_ingesting_everything_at_once_gives(tmp_path: Path) -> None:
    first, second = [row(0), BAD, row(1)], [row(2), row(0), BAD, row(3)]
    base, addition = corpus(tmp_path / "a.duckdb", first), corpus(tmp_path / "b.duckdb", second)
    together = corpus(tmp_path / "all.duckdb", first + second)
    appended = append(base, addition, tmp_path / "out.duckdb", only_new=False)
    assert appended == Appended(new_rows=4, known_rows=0)
    assert content(tmp_path / "out.duckdb") == content(together)
    assert store.corpus_name(tmp_path / "out.duckdb") == store.corpus_name(together)


def test_only_new_leaves_out_known_samples_repetitions_and_known_rejects(tmp_path: Path) -> None:
    first = [row(0), BAD, row(1)]
    base = corpus(tmp_path / "a.duckdb", first)
    again = corpus(tmp_path / "b.duckdb", [*first, row(2), row(2), {"instruction": "x", "output": " "}])
    together = corpus(tmp_path / "all.duckdb", [*first, row(2), {"instruction": "x", "output": " "}])
    appended = append(base, again, tmp_path / "out.duckdb", only_new=True)
    assert appended == Appended(new_rows=2, known_rows=4)
    assert content(tmp_path / "out.duckdb") == content(together)


def test_a_source_that_is_read_again_is_named_once(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(orjson.dumps(row(0)))
    base, again = corpus(tmp_path / "a.duckdb", rows), corpus(tmp_path / "b.duckdb", rows)
    with rows.open("ab") as file:
        file.write(b"\n" + orjson.dumps(row(1)))
    grown = corpus(tmp_path / "c.duckdb", rows)
    for name, addition, count in (("d", again, 1), ("e", grown, 2)):
        append(base, addition, tmp_path / f"{name}.duckdb", only_new=False)
        with Corpus(tmp_path / f"{name}.duckdb") as opened:
            assert len(opened.provenance.sources) == count


def test_nothing_new_writes_no_file(tmp_path: Path) -> None:
    base = corpus(tmp_path / "a.duckdb", [row(0), BAD])
    again = corpus(tmp_path / "b.duckdb", [BAD, row(0)])
    assert append(base, again, tmp_path / "out.duckdb", only_new=True) == Appended(0, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.duckdb", "b.duckdb"]


@pytest.mark.parametrize("typed_first", [True, False])
def test_tables_with_other_columns_become_json(tmp_path: Path, typed_first: bool) -> None:
    table, lines = pl.DataFrame([row(0, score=1.5), row(1, score=2.5)]), [row(2, tag="x"), row(0)]
    first, second = (table, lines) if typed_first else (lines, table)
    base, addition = corpus(tmp_path / "a.duckdb", first), corpus(tmp_path / "b.duckdb", second)
    append(base, addition, tmp_path / "out.duckdb", only_new=False)
    in_order = [*table.to_dicts(), *lines] if typed_first else [*lines, *table.to_dicts()]
    with Corpus(tmp_path / "out.duckdb") as opened:
        assert [orjson.loads(text) for text in opened.originals_json()] == in_order
        assert opened.provenance.schema is None
        assert opened.counts().duplicates == 1


def test_tables_with_the_same_columns_keep_their_types(tmp_path: Path) -> None:
    first = pl.DataFrame([row(0, score=1.5)], schema_overrides={"score": pl.Float32})
    second = pl.DataFrame([row(1, score=0.25)], schema_overrides={"score": pl.Float32})
    base, addition = corpus(tmp_path / "a.duckdb", first), corpus(tmp_path / "b.duckdb", second)
    append(base, addition, tmp_path / "out.duckdb", only_new=True)
    with Corpus(tmp_path / "out.duckdb") as opened:
        [batch] = opened.originals()
    read = pl.from_arrow(batch)
    assert isinstance(read, pl.DataFrame)
    assert read.equals(pl.concat([first, second]))
    assert read.schema["score"] == pl.Float32


def test_what_json_has_no_form_for_survives_an_addition_of_another_structure(tmp_path: Path) -> None:
    table = pa.table(
        {
            **{name: [row(0)[name]] for name in row(0)},
            "loss": pa.array([math.nan], pa.float32()),
            "image": [{"bytes": b"\x00\xff", "path": "a.png"}],
            "tags": [[{"a": 1}]],
        }
    )
    base = corpus(tmp_path / "a.duckdb", table)
    addition = corpus(tmp_path / "b.duckdb", [row(1, tags=[{"b": "x"}], loss=0.5)])
    append(base, addition, tmp_path / "out.duckdb", only_new=True)
    with Corpus(tmp_path / "out.duckdb") as opened:
        found = pa.Table.from_batches(opened.originals())
        first, _ = map(orjson.loads, opened.originals_json())
    assert found.schema.field("loss").type == pa.float64()
    assert math.isnan(found["loss"][0].as_py())
    assert found["loss"][1].as_py() == 0.5
    assert found["image"].to_pylist() == [{"bytes": "AP8=", "path": "a.png"}, None]
    assert found["tags"].to_pylist() == [[{"a": 1, "b": None}], [{"a": None, "b": "x"}]]
    assert first["loss"] == "NaN"
