"""Columns of token ids and labels, as the formats of trainers share them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datapruner.outputs.training_rows import IGNORED, Int32s, Int64s, TrainingBatch, TrainingRows
from datapruner.rows.formats import write_parquet


def lists(offsets: Int64s, values: Mapping[str, NDArray[np.generic]]) -> dict[str, pa.Array]:
    """Columns of N lists. offsets: (N + 1,), the same for all. values: (T,) each."""
    begins = pa.array(offsets.astype(np.int32))
    return {name: pa.ListArray.from_arrays(begins, pa.array(each)) for name, each in values.items()}


def tokens(batch: TrainingBatch, labels: Int32s) -> dict[str, pa.Array]:
    """The three columns by which tokenized rows are known. labels: (T,)."""
    mask = np.ones(len(batch.input_ids), dtype=np.int8)
    return lists(batch.offsets, {"input_ids": batch.input_ids, "attention_mask": mask, "labels": labels})


def next_labels(batch: TrainingBatch) -> Int32s:
    """(T,) the label of what follows each token in its row: -100 at the end, as nothing does."""
    following = np.roll(batch.labels, -1)
    following[batch.offsets[1:] - 1] = IGNORED
    return following


def write(file: BinaryIO, tables: Iterator[pa.Table], rows: TrainingRows) -> None:
    """Write a Parquet file that says of itself what rows these are. Nothing, where there are no tables."""
    metadata = {b"datapruner": json.dumps(rows.about, sort_keys=True).encode()}
    told = (table.replace_schema_metadata(metadata) for table in tables)
    if (first := next(told, None)) is not None:
        write_parquet(file, chain([first], told))
