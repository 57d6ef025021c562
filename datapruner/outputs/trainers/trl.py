"""For TRL's SFTTrainer, transformers' Trainer and axolotl: Parquet with token ids and labels.

All three take rows that are tokenized already where these are the columns: `input_ids`, `attention_mask`,
`labels` (-100 where not trained on, unshifted). axolotl asks for all three, or tokenizes anew, and
for no other: its packing fails at a `sample_id`. For the other two that is beside them, and `token_weight`
where tokens have weights. Both drop columns that they do not know, so that the configuration has what reads
it then (`weighted_loss`); axolotl takes no weights.

What they do with rows longer than they are told differs: TRL cuts them, axolotl drops them unless it is told
otherwise, the Trainer feeds them. Checked with TRL 1.16, transformers 5.23 and axolotl 0.19.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from datapruner.outputs.trainers import columns
from datapruner.outputs.trainers.trainer import AsFile, parquet_pattern, quoted
from datapruner.outputs.training_rows import TrainingBatch, TrainingRows


def _write(file: BinaryIO, rows: TrainingRows) -> None:
    columns.write(file, map(_table, rows), rows)


def _write_tokens(file: BinaryIO, rows: TrainingRows) -> None:
    columns.write(file, (pa.table(columns.tokens(batch, batch.labels)) for batch in rows), rows)


def _table(batch: TrainingBatch) -> pa.Table:
    table = {"sample_id": pa.array(batch.sample_ids, pa.string())} | columns.tokens(batch, batch.labels)
    if batch.token_weights is not None:
        table |= columns.lists(batch.offsets, {"token_weight": batch.token_weights})
    return pa.table(table)


def _weighted_loss() -> str:
    """What a configuration begins with whose trainer is to read the weights."""
    source = resources.files(__package__) / "weighted_loss.py"
    return source.read_text(encoding="utf-8") + "\n\n"


def _trl(path: Path, rows: TrainingRows) -> str:
    if rows.counts.weighted:
        return f"""\
{_weighted_loss()}\
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer


class WeightedTrainer(WeightedLoss, SFTTrainer):
    pass


rows = load_dataset("parquet", data_files={parquet_pattern(path)!r}, split="train")
# The longest row; without max_length TRL cuts rows at 1024 tokens. Rows cannot be packed.
config = SFTConfig("trained", max_length={rows.counts.longest}, remove_unused_columns=False)
trainer = WeightedTrainer({rows.model!r}, args=config, train_dataset=rows)
trainer.data_collator = WithWeights(trainer.data_collator)
trainer.train()
"""
    return f"""\
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

rows = load_dataset("parquet", data_files={parquet_pattern(path)!r}, split="train")
# The longest row; without max_length TRL cuts rows at 1024 tokens.
config = SFTConfig("trained", max_length={rows.counts.longest})
SFTTrainer({rows.model!r}, args=config, train_dataset=rows).train()
"""


def _transformers(path: Path, rows: TrainingRows) -> str:
    if rows.counts.weighted:
        return f"""\
{_weighted_loss()}\
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq
from transformers import Trainer, TrainingArguments


class WeightedTrainer(WeightedLoss, Trainer):
    pass


rows = load_dataset("parquet", data_files={parquet_pattern(path)!r}, split="train")
# Nothing is cut; the longest row has {rows.counts.longest} tokens.
collator = WithWeights(DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained({rows.model!r})))
model = AutoModelForCausalLM.from_pretrained({rows.model!r})
arguments = TrainingArguments("trained", remove_unused_columns=False)
WeightedTrainer(model, arguments, train_dataset=rows, data_collator=collator).train()
"""
    return f"""\
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq
from transformers import Trainer, TrainingArguments

rows = load_dataset("parquet", data_files={parquet_pattern(path)!r}, split="train")
# Nothing is cut; the longest row has {rows.counts.longest} tokens.
collator = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained({rows.model!r}))
model = AutoModelForCausalLM.from_pretrained({rows.model!r})
arguments = TrainingArguments("trained")
Trainer(model, arguments, train_dataset=rows, data_collator=collator).train()
"""


def _axolotl(path: Path, rows: TrainingRows) -> str:
    return f"""\
base_model: {quoted(rows.model)}
datasets:
  - path: {quoted(str(path))}
    ds_type: parquet
    type:
sequence_len: {rows.counts.longest}  # the longest row
excess_length_strategy: raise  # without it longer rows are dropped
"""


_WEIGHTS = "`token_weight`, read by the loss in its configuration; divided by the number of trained tokens"
TRL = AsFile("trl", ".parquet", _write, _trl, _WEIGHTS)
TRANSFORMERS = AsFile("transformers", ".parquet", _write, _transformers, _WEIGHTS)
AXOLOTL = AsFile("axolotl", ".parquet", _write_tokens, _axolotl)
