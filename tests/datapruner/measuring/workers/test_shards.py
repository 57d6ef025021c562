"""Shards: what a worker wrote is what is read, and half a shard is none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datapruner.measuring import vectors
from datapruner.measuring.workers import shards
from scorers.conversations.chat import Encoded
from scorers.signals.forward import Measured

SCHEMA = shards.schema(2, 3)


def sample(tied: float | None = None) -> dict[str, Any]:
    encoded = Encoded(
        input_ids=np.arange(5, dtype=np.int32),
        position=np.array([3, 4], dtype=np.int32),
        turn=np.array([1, 1], dtype=np.int32),
        char_start=np.array([0, 4], dtype=np.int32),
        char_end=np.array([4, 4], dtype=np.int32),
        is_end=np.array([False, True]),
        n_truncated=6,
        n_tokens_full=11,
    )
    measured = Measured(
        nll=np.array([0.5, 1.25], dtype=np.float32),
        entropy=np.array([0.1, 0.2], dtype=np.float32),
        el2n=np.array([1.0, 0.5], dtype=np.float32),
        top1=np.array([True, False]),
        head_grad_norm=1 / 3,
        head_grad_dot=-2 / 3,
        head_grad_projection=np.array([1, -1], dtype=np.float32),
        mean_hidden=np.array([1, 2, 3], dtype=np.float32),
        weighted_hidden=np.array([3, 2, 1], dtype=np.float32),
        tied_grad_norm=tied,
        tied_grad_dot=tied,
    )
    return shards.measured_row("a", encoded, measured, 7.5)


def in_parts(*vector: float) -> dict[str, Any]:
    """A vector as it is stored."""
    found: dict[str, Any] = vectors.pack(np.array([vector], dtype=np.float32), len(vector))[0].as_py()
    return found


def test_a_measured_sample_comes_back_as_it_was(tmp_path: Path) -> None:
    shards.write(tmp_path / "s.parquet", [sample(tied=0.1)], SCHEMA)
    (found,) = pq.read_table(tmp_path / "s.parquet").to_pylist()
    assert found == {
        "sample_id": "a",
        "error": None,
        "input_ids": [0, 1, 2, 3, 4],
        "position": [3, 4],
        "turn": [1, 1],
        "char_start": [0, 4],
        "char_end": [4, 4],
        "is_end": [False, True],
        "n_tokens": 5,
        "n_prompt_tokens": 3,
        "n_response_tokens": 2,
        "n_truncated": 6,
        "n_tokens_full": 11,
        "nll": [0.5, 1.25],
        "entropy": pytest.approx([0.1, 0.2]),
        "el2n": [1.0, 0.5],
        "top1": [True, False],
        "nll_mean": 0.875,
        "entropy_mean": pytest.approx(0.15),
        "el2n_mean": 0.75,
        "head_grad_norm": 1 / 3,
        "head_grad_dot": -2 / 3,
        "head_norm": 7.5,
        "tied_grad_norm": 0.1,
        "tied_grad_dot": 0.1,
        "head_grad_projection": in_parts(1, -1),
        "mean_hidden": in_parts(1, 2, 3),
        "weighted_hidden": in_parts(3, 2, 1),
    }


def test_a_mean_is_taken_in_double_precision() -> None:
    row = sample()
    assert row["entropy_mean"] == (float(np.float32(0.1)) + float(np.float32(0.2))) / 2


def test_a_sample_that_failed_has_its_reason_and_nothing_else(tmp_path: Path) -> None:
    shards.write(tmp_path / "s.parquet", [sample(), {"sample_id": "b", "error": "too long"}], SCHEMA)
    good, bad = pq.read_table(tmp_path / "s.parquet").to_pylist()
    assert (good["error"], good["tied_grad_norm"]) == (None, None)
    assert {name for name, value in bad.items() if value is not None} == {"sample_id", "error"}


def test_a_shard_of_failures_only_can_be_read_along_with_others(tmp_path: Path) -> None:
    shards.write(tmp_path / "1.parquet", [{"sample_id": "b", "error": "too long"}], SCHEMA)
    shards.write(tmp_path / "2.parquet", [sample()], SCHEMA)
    frame = pl.read_parquet([tmp_path / "1.parquet", tmp_path / "2.parquet"])
    assert frame["n_truncated"].to_list() == [None, 6]


def test_a_shard_that_is_there_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    shards.write(path, [{"sample_id": "b", "error": "x"}], SCHEMA)
    with path.open("rb") as reader:
        shards.write(path, [sample()], SCHEMA)
        assert pq.read_table(pa.PythonFile(reader))["sample_id"].to_pylist() == ["b"]
    assert pq.read_table(path)["sample_id"].to_pylist() == ["a"]


def test_when_writing_fails_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        shards.write(tmp_path / "s.parquet", [sample()], SCHEMA)
    assert list(tmp_path.iterdir()) == []
