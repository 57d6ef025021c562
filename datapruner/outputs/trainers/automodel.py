"""For NeMo Automodel: Parquet whose labels are shifted, as its loss does not: `labels[t]` is of the token
after `input_ids[t]`.

The three columns alone, as its collator cannot pad any other. Checked with nemo-automodel 0.7.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from datapruner.outputs.trainers import columns
from datapruner.outputs.trainers.trainer import AsFile, parquet_pattern, quoted
from datapruner.outputs.training_rows import TrainingRows


def _write(file: BinaryIO, rows: TrainingRows) -> None:
    def tables() -> Iterator[pa.Table]:
        for batch in rows:
            yield pa.table(columns.tokens(batch, columns.next_labels(batch)))

    columns.write(file, tables(), rows)


def _note(path: Path, rows: TrainingRows) -> str:
    return f"""\
model:
  _target_: nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained
  pretrained_model_name_or_path: {quoted(rows.model)}
dataset:
  _target_: datasets.load_dataset
  path: parquet
  data_files: {quoted(parquet_pattern(path))}
  split: train
dataloader:
  collate_fn: nemo_automodel.components.datasets.utils.default_collater
packed_sequence:
  packed_sequence_size: 0  # to pack: {rows.counts.longest}, the longest row, or more; longer rows are dropped
"""


AUTOMODEL = AsFile("automodel", ".parquet", _write, _note)
