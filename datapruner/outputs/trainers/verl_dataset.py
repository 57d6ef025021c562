"""Rows of token ids and a mask of which are trained on, as verl's SFT trainer takes them without padding.

It needs nothing but what verl needs: `data.custom_cls.path` names a copy of this file.
"""

import glob
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import load_dataset
from torch.utils.data import Dataset


class MaskedRows(Dataset[dict[str, torch.Tensor]]):
    """Of Parquet files with `input_ids` and `loss_mask`, read where they lie.

    Raises ValueError for padding, which it does not do, and for a row over `max_length`.
    """

    def __init__(
        self,
        parquet_files: str | Sequence[str],
        tokenizer: Any,
        config: Mapping[str, Any],
        processor: Any = None,
        max_samples: int = -1,
    ) -> None:
        if (pad_mode := config.get("pad_mode", "no_padding")) != "no_padding":
            raise ValueError(f"data.pad_mode is {pad_mode}: these rows are read with no_padding")
        files = [parquet_files] if isinstance(parquet_files, str) else [str(each) for each in parquet_files]
        # Which takes paths for patterns.
        rows = load_dataset("parquet", data_files=[glob.escape(each) for each in files], split="train")
        self.rows = rows if max_samples < 0 else rows.select(range(min(max_samples, len(rows))))
        self.max_length: int = config.get("max_length", 1024)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        row = self.rows[item]
        if (length := len(row["input_ids"])) > self.max_length:
            raise ValueError(f"row {item} has {length} tokens: data.max_length is {self.max_length}")
        return {
            "input_ids": torch.tensor(row["input_ids"]),
            "position_ids": torch.arange(length),
            "loss_mask": torch.tensor(row["loss_mask"]),
        }
