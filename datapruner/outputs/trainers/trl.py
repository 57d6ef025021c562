"""For TRL's SFTTrainer, transformers' Trainer and axolotl: Parquet with token ids and labels.

All three take rows that are tokenized already where these are the columns: `input_ids`, `attention_mask`,
`labels` (-100 where not trained on, unshifted). axolotl asks for all three, or tokenizes anew. `sample_id` is
beside them, and `token_weight` where tokens have weights, which is for trainers of your own: these three drop
columns that they do not know.

What they do with rows longer than they are told differs: TRL cuts them, axolotl drops them unless it is told
otherwise, the Trainer feeds them. Checked with TRL 1.16, transformers 5.23 and axolotl 0.19.
"""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from datapruner.outputs.trainers.trainer import AsFile
from datapruner.outputs.training_rows import TrainingBatch, TrainingRows
from datapruner.rows.formats import write_parquet


def _write(file: BinaryIO, rows: TrainingRows) -> None:
    metadata = {b"datapruner": json.dumps(rows.about, sort_keys=True).encode()}
    tables = (_table(batch).replace_schema_metadata(metadata) for batch in rows)
    if (first := next(tables, None)) is not None:
        write_parquet(file, chain([first], tables))


def _table(batch: TrainingBatch) -> pa.Table:
    columns = {
        "input_ids": pa.array(batch.input_ids),
        "attention_mask": pa.array(np.ones(len(batch.input_ids), dtype=np.int8)),
        "labels": pa.array(batch.labels),
    }
    if batch.token_weights is not None:
        columns["token_weight"] = pa.array(batch.token_weights)
    offsets = pa.array(batch.offsets.astype(np.int32))
    lists = {name: pa.ListArray.from_arrays(offsets, values) for name, values in columns.items()}
    return pa.table({"sample_id": pa.array(batch.sample_ids, pa.string())} | lists)


def _data_files(path: Path) -> str:
    return repr(str(path if path.suffix == ".parquet" else path / "*.parquet"))


def _trl(path: Path, rows: TrainingRows) -> str:
    return f"""\
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

rows = load_dataset("parquet", data_files={_data_files(path)}, split="train")
# The longest row; without max_length TRL cuts rows at 1024 tokens.
config = SFTConfig("trained", max_length={rows.counts.longest})
SFTTrainer({rows.model!r}, args=config, train_dataset=rows).train()
"""


def _transformers(path: Path, rows: TrainingRows) -> str:
    return f"""\
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq
from transformers import Trainer, TrainingArguments

rows = load_dataset("parquet", data_files={_data_files(path)}, split="train")
# Nothing is cut; the longest row has {rows.counts.longest} tokens.
collator = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained({rows.model!r}))
model = AutoModelForCausalLM.from_pretrained({rows.model!r})
arguments = TrainingArguments("trained")
Trainer(model, arguments, train_dataset=rows, data_collator=collator).train()
"""


def _axolotl(path: Path, rows: TrainingRows) -> str:
    return f"""\
base_model: {json.dumps(rows.model)}
datasets:
  - path: {json.dumps(str(path))}
    ds_type: parquet
    type:
sequence_len: {rows.counts.longest}  # the longest row
excess_length_strategy: raise  # without it longer rows are dropped
"""


TRL = AsFile("trl", "TRL's SFTTrainer", ".parquet", _write, _trl)
TRANSFORMERS = AsFile("transformers", "transformers' Trainer", ".parquet", _write, _transformers)
AXOLOTL = AsFile("axolotl", "axolotl", ".parquet", _write, _axolotl)
