"""verl's SFT trainer but for its processes on GPUs: its dataset, its collator and its loss, whose derivatives
by the log-probabilities say which of them it trains on."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import torch
from feeding import Row, hand_back, job
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.trainer.sft_trainer import create_sft_dataset
from verl.utils import tensordict_utils
from verl.utils.dataset.dataset_utils import SFTTensorCollator
from verl.workers.utils.losses import sft_loss


def fed(batch: dict[str, torch.Tensor]) -> Iterator[Row]:
    ids = batch["input_ids"]
    flat = torch.zeros(ids.values().shape, requires_grad=True)
    log_probs = torch.nested.nested_tensor_from_jagged(flat, ids.offsets())
    data = TensorDict({"loss_mask": batch["loss_mask"]}, batch_size=[])
    tensordict_utils.assign_non_tensor(data, pad_mode="no_padding", dp_size=1, batch_num_tokens=1)
    loss, _ = sft_loss(None, {"log_probs": log_probs}, data)
    loss.backward()
    # The log-probability in each place is of the token in the next.
    counted = torch.roll(flat.grad != 0, 1)
    for start, stop in zip(ids.offsets()[:-1].tolist(), ids.offsets()[1:].tolist(), strict=True):
        row = ids.values()[start:stop]
        labels = torch.where(counted[start:stop], row, -100)
        yield row.tolist(), labels.tolist()


if __name__ == "__main__":
    given = job()
    settings = [
        each for each in shlex.split(given["configuration"].replace("\\\n", "")) if each.startswith("data.")
    ]
    config = OmegaConf.from_dotlist(settings).data
    rows = create_sft_dataset(config.train_files, config, None, None)
    loader = torch.utils.data.DataLoader(rows, batch_size=4, collate_fn=SFTTensorCollator(config.pad_mode))
    hand_back(given, (row for batch in loader for row in fed(batch)), "verl", "transformers", "datasets")
