"""What methods may ask for though no shard has it, from real shards and real configurations."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import datapruner
from datapruner.errors import ModelError
from datapruner.measuring.derived import prompts, vocabulary
from datapruner.measuring.places import Places
from scorers.signals.columns import Ints
from tests.tiny_model import LINES


def of_rows(folder: Path, rows: Sequence[tuple[list[int], list[int]]]) -> Ints:
    """The prompts of samples with these token ids and places of response tokens, in two shards."""
    paths, parts = [folder / "a.parquet", folder / "b.parquet"], (rows[:2], rows[2:])
    for path, part in zip(paths, parts, strict=True):
        ids, positions = zip(*part, strict=True)
        kind = pa.list_(pa.int32())
        columns = {"input_ids": pa.array(ids, kind), "position": pa.array(positions, kind)}
        pq.write_table(pa.table(columns), path)
    count: Any = [2, len(rows) - 2]
    shard = [0, 0] + [1] * (len(rows) - 2)
    line = [0, 1, *range(len(rows) - 2)]
    return prompts(Places(paths, np.array(count), np.array(shard), np.array(line)))


def test_samples_have_one_prompt_when_all_before_and_between_the_responses_is_the_same(
    tmp_path: Path,
) -> None:
    found = of_rows(
        tmp_path,
        [
            ([1, 2, 3, 50, 51], [3, 4]),
            ([1, 2, 3, 60], [3]),  # another response, of another length
            ([1, 2, 3, 50, 51, 9], [3, 4]),  # the template's end of a turn, which nothing sees
            ([1, 2, 4, 50, 51], [3, 4]),  # another prompt
            ([1, 2, 3, 50, 51], [4]),  # only the last of both tokens is a response
            ([1, 2, 3, 50, 7, 8, 70, 71], [3, 6, 7]),  # two turns
            ([1, 2, 3, 61, 62, 7, 8, 70], [3, 4, 7]),  # the same questions, other answers
            ([1, 2, 3, 50, 7, 9, 70, 71], [3, 6, 7]),  # another second question
        ],
    )
    same = [[i for i, other in enumerate(found) if other == one] for one in found]
    assert same == [[0, 1, 2]] * 3 + [[3], [4], [5, 6], [5, 6], [7]]


def test_the_vocabulary_is_read_from_the_configuration(tmp_path: Path, tiny_folder: Path) -> None:
    written = json.loads((tiny_folder / "config.json").read_text())
    assert vocabulary(tiny_folder) == written["vocab_size"]
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"vocab_size": 12}, "vocab_size": 9}))
    assert vocabulary(tmp_path) == 12
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="does not say how many tokens it chooses from"):
        vocabulary(tmp_path)


def test_one_response_to_each_prompt_is_kept_of_real_rows(home: Path, options: dict[str, Any]) -> None:
    rows = [
        {"instruction": "Name a colour.", "input": "", "output": "Blue."},
        {"instruction": "Name a colour.", "input": "", "output": "x q 9 % ありがとう 🙏 zzzz ~ #"},
        {"instruction": "Name a colour.", "input": "Be brief.", "output": "Red."},
        *(LINES[row] for row in (24, 25)),
    ]
    made = datapruner.prune(rows, "grape", 1.0, home=home, **options)
    scores = made.scores.sort("row")
    assert scores["grape_responses"].to_list() == [2, 2, 1, 1, 1]
    lower = scores["ppl"][:2].arg_min()
    assert scores["keep"].to_list() == [lower == 0, lower == 1, True, True, True]


def test_difficulty_is_taken_with_the_models_own_vocabulary(
    home: Path, options: dict[str, Any], tiny_folder: Path
) -> None:
    rows = [LINES[row] for row in (0, 6, 24)]
    made = datapruner.prune(rows, "upd", 0.5, home=home, **options)
    widest = math.log(json.loads((tiny_folder / "config.json").read_text())["vocab_size"])
    tokens = made.token_scores.with_columns(
        upd=(1 / (1 + (-pl.col("nll").cast(pl.Float64)).exp())) * (1 - pl.col("entropy") / widest).clip(0)
    )
    expected = tokens.group_by("row").agg(pl.col("upd").mean()).sort("row")["upd"].to_list()
    assert made.scores.sort("row")["upd"].to_list() == pytest.approx(expected, rel=1e-6)
