"""For verl's SFT trainer: Parquet, and the dataset class that it is told to read it with.

The mask is unshifted: the trainer shifts it where it takes the loss, over rows one after another, so that the
one of a row's first token would fall on the last of the row before. It is never set. Where tokens have
weights the mask is these: each log-probability is multiplied by its own, and the sum divided by that of the
mask (`verl/workers/utils/losses.py`). Checked with verl 0.9.1.
"""

from __future__ import annotations

import shlex
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa

from datapruner.outputs.trainers import columns
from datapruner.outputs.trainers.trainer import AsFolder, quoted
from datapruner.outputs.training_rows import IGNORED, TrainingBatch, TrainingRows


def _write(folder: Path, rows: TrainingRows) -> None:
    with (folder / "rows.parquet").open("xb") as file:
        columns.write(file, map(_table, rows), rows)
    loader = resources.files(__package__) / "verl_dataset.py"
    (folder / "dataset.py").write_bytes(loader.read_bytes())


def _table(batch: TrainingBatch) -> pa.Table:
    weights = batch.token_weights
    mask = (batch.labels != IGNORED).astype(np.int8) if weights is None else weights.copy()
    mask[batch.offsets[:-1]] = 0
    return pa.table(columns.lists(batch.offsets, {"input_ids": batch.input_ids, "loss_mask": mask}))


def _note(path: Path, rows: TrainingRows) -> str:
    return f"""\
torchrun --standalone --nproc_per_node=1 -m verl.trainer.sft_trainer \\
  {_set("model.path", rows.model)} \\
  {_set("data.train_files", str(path / "rows.parquet"))} \\
  {_set("data.custom_cls.path", str(path / "dataset.py"))} data.custom_cls.name=MaskedRows \\
  data.pad_mode=no_padding data.max_length={rows.counts.longest}
"""


def _set(key: str, value: str) -> str:
    """An override as Hydra reads it from a shell."""
    return shlex.quote(f"{key}={quoted(value)}")


VERL = AsFolder("verl", _write, _note, weights="`loss_mask`, of floats; divided by the sum of the weights")
