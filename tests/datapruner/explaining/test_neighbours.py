"""The samples most like one, beside all cosines worked out at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import datapruner
from datapruner.errors import ConflictError, NotFoundError
from datapruner.explaining.neighbours import nearest
from datapruner.measuring.signal_cache import ProxyKey, SignalCache
from datapruner.measuring.vectors import unpack
from datapruner.result import Result
from datapruner.runs.published import corpus_path


def test_they_come_by_their_cosine_and_are_not_the_sample_itself(first_run: Result, home: Path) -> None:
    run = first_run.run
    scored = first_run.scores.filter(pl.col("ppl").is_not_null())
    measured = scored.unique("sample_id", keep="first", maintain_order=True)
    rows, ids = measured["row"].to_list(), measured["sample_id"].to_list()
    cache = SignalCache(home, ProxyKey(**run.lineage["proxy"]))
    vectors = unpack(cache.columns(ids, ["mean_hidden"])["mean_hidden"]).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    for at in (0, len(ids) // 2, len(ids) - 1):
        found = nearest(run, corpus_path(run, home), home, ids[at], 4)
        assert found.samples == len(ids)
        assert found.vectors == "mean_hidden"
        best = np.argsort(-cosines[at], kind="stable")[:4]
        assert [each.cosine for each in found.rows] == pytest.approx(cosines[at][best].tolist(), abs=1e-5)
        assert {each.row for each in found.rows} == {rows[number] for number in best}
        assert all(each.prompt and each.response for each in found.rows)


def test_what_was_not_measured_has_none(first_run: Result, home: Path, tmp_path: Path) -> None:
    run, corpus = first_run.run, corpus_path(first_run.run, home)
    known = first_run.scores["sample_id"][0]
    for signals, sample in ((home, "0" * 64), (tmp_path, known)):
        with pytest.raises(NotFoundError, match=f"has no vector of sample {sample}"):
            nearest(run, corpus, signals, sample, 3)


def test_a_run_that_no_model_read_for_has_none(
    corpus_file: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    run = datapruner.prune(corpus_file, "length", 0.5, home=tmp_path, **options).run
    with pytest.raises(ConflictError, match="no model read the samples"):
        nearest(run, corpus_path(run, tmp_path), tmp_path, "0" * 64, 3)
