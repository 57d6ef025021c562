"""Weights of tokens for transformers' Trainer and those that are made of it.

A step's loss is the sum of each trained token's, multiplied by its weight, divided by their number. It needs
nothing but what the trainer needs: a configuration for weighted rows begins with a copy of this file.
"""

from collections.abc import Callable
from typing import Any

import torch


class WithWeights:
    """A collator that hands on `token_weight`, 0 where rows are padded, with what another one makes."""

    def __init__(self, collator: Callable[[list[dict[str, Any]]], Any]) -> None:
        self.collator = collator

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        known = ("input_ids", "attention_mask", "labels")
        batch = self.collator([{name: row[name] for name in known} for row in rows])
        weights = torch.zeros(batch["input_ids"].shape)
        for line, row in enumerate(rows):
            weights[line, batch["attention_mask"][line].bool()] = torch.tensor(row["token_weight"])
        batch["token_weight"] = weights
        return batch


class WeightedLoss:
    """What makes a Trainer beside it in a class's bases train with these weights."""

    def compute_loss(
        self: Any,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        weights, labels = inputs.pop("token_weight")[:, 1:], inputs.pop("labels")[:, 1:]
        outputs = model(**inputs)
        logits = outputs.logits[:, :-1].float().transpose(1, 2)
        nll = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="none")
        count = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        loss = (weights * nll).sum() / count
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # of which the gradients are averaged
        return (loss, outputs) if return_outputs else loss
