"""What corpora and runs cost on disk, and that only small ones have small blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

import datapruner
from datapruner.corpora.append import append
from datapruner.corpora.corpus import Corpus
from datapruner.corpora.ingest import ingest
from datapruner.result import Result
from datapruner.system import blocks

KB = 1 << 10


def block_size(path: Path) -> int:
    with duckdb.connect(str(path), read_only=True) as connection:
        [(size,)] = connection.execute("SELECT block_size FROM pragma_database_size()").fetchall()
    return int(size)


def rows(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"Number {i}?", "completion": f"It is {i}."} for i in range(count)]


def test_five_rows_cost_a_corpus_a_tenth_of_a_megabyte(tmp_path: Path) -> None:
    five = tmp_path / "five.duckdb"
    ingest(rows(5), out=five)
    assert five.stat().st_size < 100 * KB
    ingest([{"prompt": "a", "completion": ""}, *rows(4)], out=tmp_path / "rejects.duckdb")
    assert (tmp_path / "rejects.duckdb").stat().st_size < 128 * KB
    ten = tmp_path / "ten.duckdb"
    ingest(rows(10)[5:], out=tmp_path / "others.duckdb")
    append(five, tmp_path / "others.duckdb", ten, only_new=True)
    assert ten.stat().st_size < 200 * KB


def test_a_few_rows_cost_a_run_a_tenth_of_a_megabyte(first_run: Result, prune: Any) -> None:
    assert first_run.run.database.stat().st_size < 150 * KB
    scored: Result = prune("ppl", 0.5)
    assert scored.run.database.stat().st_size < 150 * KB


def test_a_few_rewritten_rows_cost_as_little(tmp_path: Path, options: dict[str, Any]) -> None:
    lesson = {"question": "Why?", "thinking": "One step.\n\nAnother one.", "answer": "So."}
    result = datapruner.rewrite([lesson] * 5, "asap", max_token_ratio=0.5, home=tmp_path, **options)
    assert result.run.database.stat().st_size < 150 * KB


@pytest.mark.parametrize("count", [8192, 8193, 20_000])
def test_a_corpus_of_more_than_one_chunk_has_blocks_of_the_usual_size(tmp_path: Path, count: int) -> None:
    path = tmp_path / "many.duckdb"
    ingest(rows(count), out=path)
    assert block_size(path) == (blocks.DEFAULT if count > 8192 else blocks.SMALL)
    with Corpus(path) as corpus:
        assert corpus.sample_index()["row"].to_list() == list(range(count))
        assert corpus.counts().accepted == count


def test_rows_that_are_all_rejected_but_the_last_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "last.duckdb"
    report = ingest([{"prompt": "a", "completion": ""}] * 20_000 + rows(1), out=path)
    assert (report.rows, report.accepted, report.rejected) == (20_001, 1, 20_000)
    with Corpus(path) as corpus:
        assert len(corpus.rejects()) == 20_000


@pytest.mark.parametrize(
    ("count", "characters", "size"),
    [
        (1, 10, blocks.SMALL),
        (1, 1_000_000, blocks.DEFAULT),
        (100, 500, blocks.SMALL),
        (3000, 1, blocks.DEFAULT),
    ],
)
def test_a_run_has_small_blocks_when_its_corpus_is_small(
    tmp_path: Path, count: int, characters: int, size: int
) -> None:
    blocks.create(tmp_path / "run.duckdb", pl.DataFrame({"n_chars": [characters] * count}))
    assert block_size(tmp_path / "run.duckdb") == size
